#!/usr/bin/env bash
# Trains on all GPUs of this machine, and goes on after an interruption.
#
#   launch/local_multi_gpu.sh --config=configs/gpu.py:8 --config.data.path=/data/music --workdir=/runs/first
#
# One process drives all GPUs. CUDA_VISIBLE_DEVICES=0,1 takes some of them; RESTARTS=10 is how often
# a run that was interrupted is started again.
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) || { echo "usage: [RESTARTS=10] $0 --config=FILE --workdir=FOLDER [--config.field=value …]" >&2; exit 1; }

# jax itself would train on the CPU.
if [[ -z ${JAX_PLATFORMS:-} ]] && ! python -c 'import jax; jax.devices("gpu")' 2>/dev/null; then
  echo "error: jax finds no GPU: pip install -e '.[cuda]', and see whether nvidia-smi names any" >&2
  exit 1
fi
exec launch/again.sh python -m m2l_jax.train "$@"
