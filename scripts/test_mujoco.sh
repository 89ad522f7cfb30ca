#!/bin/sh
# Runs the environments' tests with another version of MuJoCo than the pinned one, which stays as it
# is: test_mujoco.sh PYTHON VERSION
set -eu
python=$1 version=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m pip install --quiet --no-compile --target "$folder" --no-deps "mujoco==$version"
export PYTHONPATH="$folder"
"$python" -c "import mujoco; assert mujoco.__version__ == '$version'; print('MuJoCo', mujoco.__version__)"
"$python" -m pytest tests/envs
