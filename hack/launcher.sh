#!/bin/sh
# Writes a program that is the cache's Python, with the packages that the demo's Python service needs: launcher.sh PYTHON PROGRAM.
set -e
mkdir -p "$(dirname "$2")"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$1" >"$2.new"
chmod +x "$2.new"
mv "$2.new" "$2"
