#!/bin/sh
# Finds a Python that is new enough and lets tools/setup_env.py make or check .venv with it.
# PYTHON=/path/to/python names the interpreter; nothing is installed outside .venv.
set -eu
cd "$(dirname "$0")/.."

try() { "$1" -c 'import sys; sys.exit(not (sys.version_info >= '"$2"' and sys.version_info < '"$3"'))' >/dev/null 2>&1; }

# A finished .venv answers for itself.
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ] && try .venv/bin/python "(3, 10)" "(4,)"; then
    exec .venv/bin/python tools/setup_env.py "$@"
fi
if [ -n "${PYTHON:-}" ]; then
    if try "$PYTHON" "(3, 10)" "(4,)"; then exec "$PYTHON" tools/setup_env.py "$@"; fi
    echo "setup: PYTHON=$PYTHON is not a working Python 3.10 or newer" >&2
    exit 2
fi
# First those that every optional package has builds for, then whatever else is new enough.
for name in python3 python3.12 python3.11 python3.13 python; do
    if try "$name" "(3, 11)" "(3, 14)"; then exec "$name" tools/setup_env.py "$@"; fi
done
for name in python3 python3.10 python3.14 python; do
    if try "$name" "(3, 10)" "(4,)"; then exec "$name" tools/setup_env.py "$@"; fi
done
echo "setup: no Python 3.10 or newer found (python3 is: $(python3 --version 2>&1 || echo missing))" >&2
echo "  install one (for instance 'apt install python3.12 python3.12-venv'), or name it: make setup PYTHON=/path/to/python3.12" >&2
exit 2
