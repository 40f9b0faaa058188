#!/usr/bin/env bash
# Create the virtual environment $1 with the Python named in $2, or with the first suitable one on the PATH.
set -euo pipefail
venv=$1
wanted=${2:-}

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

python=''
for candidate in ${wanted:-python3.11 python3 python3.12 python}; do
    if fits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    if [ -n "$wanted" ]; then
        echo "error: PYTHON=$wanted is $("$wanted" --version 2>&1 | head -n 1 || true); Python 3.11 or 3.12 with venv is needed" >&2
    else
        echo "error: no Python 3.11 or 3.12 with venv on the PATH (python3 is: $(python3 --version 2>/dev/null || echo missing));" \
             "install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv) or name it: make PYTHON=/path/to/python3.11" >&2
    fi
    exit 2
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ -e "$venv/pyvenv.cfg" ] && ! grep -q "^version = $version\." "$venv/pyvenv.cfg"; then
    echo "error: $venv was created with another Python ($(grep '^version = ' "$venv/pyvenv.cfg")), not $version: rm -rf $venv" >&2
    exit 2
fi
echo "    $("$python" --version) from $(command -v "$python")"
"$python" -m venv "$venv"
