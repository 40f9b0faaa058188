#!/usr/bin/env bash
# Create the virtual environment $1 with the Python named in $3, or with the first one on the PATH of a version that file $2 lists.
set -euo pipefail
venv=$1
read -ra versions < "$2"
wanted=${3:-}
listed=$(printf ' or %s' "${versions[@]}")
listed=${listed# or }

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1:])' "${versions[@]}" \
        >/dev/null 2>&1
}

python=''
for candidate in ${wanted:-"${versions[@]/#/python}" python3 python}; do
    if fits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    if [ -n "$wanted" ]; then
        echo "error: PYTHON=$wanted is $("$wanted" --version 2>&1 | head -n 1 || true); Python $listed with venv is needed" >&2
    else
        echo "error: no Python $listed with venv on the PATH (python3 is: $(python3 --version 2>/dev/null || echo missing));" \
             "install one (Debian, Ubuntu: apt-get install python$versions python$versions-venv) or name it: make PYTHON=/path/to/python$versions" >&2
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
