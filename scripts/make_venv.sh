#!/bin/sh
# make_venv.sh FOLDER: make a virtual environment there with the first Python >= 3.11 that can
# ($PYTHON alone, when it is set). An environment that works already is left as it is.
set -eu
folder=$1

good='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
if "$folder/bin/python" -m pip --version >/dev/null 2>&1 && "$folder/bin/python" -c "$good"; then
    exit 0
fi

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    if "$python" -c "$good" >/dev/null 2>&1; then
        echo "making $folder with $("$python" --version) ($(command -v "$python"))"
        exec "$python" -m venv --clear "$folder"
    fi
done

if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python >= 3.11 with the venv and ensurepip modules." >&2
else
    echo "No Python >= 3.11 with the venv and ensurepip modules was found on PATH." >&2
fi
echo "Install one (Debian or Ubuntu: sudo apt-get install python3 python3-venv;" >&2
echo "Fedora: sudo dnf install python3.12; macOS: brew install python@3.12)," >&2
echo "or name it: make PYTHON=/path/to/python3.12 install" >&2
exit 1
