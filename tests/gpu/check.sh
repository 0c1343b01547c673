#!/usr/bin/env bash
# Run what needs a GPU with PYTHON (python3), which needs PyTorch with CUDA, torchvision, pyarrow, safetensors, NumPy,
# Pillow, pytest and hypothesis. Packages that it lacks come from gpu-wheels/, data from gpu-shards/ (`make gpu-prepare`).
# The report goes to $OUT/gpu-check.json, or here. Arguments name parts of the checks; none: all (check.py --help).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1

if ! "$python" -c 'import pydantic, simplejpeg; from filelock import SoftFileLease' 2>/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  echo "$("$python" --version) lacks packages: taking those of gpu-wheels/"
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" gpu-wheels/*.whl
  export PYTHONPATH="$PWD:$site"
fi
"$python" tests/gpu/check.py "$@"
