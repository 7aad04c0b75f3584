#!/bin/sh
# Writes a program that runs a Python server with the cache's Python: launcher.sh PYTHON SCRIPT PROGRAM.
set -e
mkdir -p "$(dirname "$3")"
printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$1" "$(realpath "$2")" >"$3.new"
chmod +x "$3.new"
mv "$3.new" "$3"
