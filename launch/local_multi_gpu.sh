#!/usr/bin/env bash
# Trains on all GPUs of this machine, and goes on after an interruption.
#
#   launch/local_multi_gpu.sh --config=configs/default.py --config.data.path=/data/music --workdir=/runs/first
#
# One process drives all GPUs. CUDA_VISIBLE_DEVICES=0,1 takes some of them; RESTARTS=10 is how often
# a run that was interrupted is started again.
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) || { echo "usage: [RESTARTS=10] $0 --config=FILE --workdir=FOLDER [--config.field=value …]" >&2; exit 1; }

# Without this, jax falls back to the CPU with a warning where its CUDA packages are missing.
export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda}
exec launch/again.sh python -m m2l_jax.train "$@"
