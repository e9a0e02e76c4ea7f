#!/usr/bin/env bash
# Encodes a corpus on all accelerators of a Ray cluster, or else all its cores; nodes may come and go.
#
#   ADDRESS=http://head:8265 launch/ray_encode.sh --dtype=bfloat16 --input=/data/music --output=/data/latents --checkpoint=/runs/first
#
# Paths must be seen by all nodes, under the same names. The nodes need this project's requirements
# (pip install --requirement=requirements.txt, and on GPUs 'jax[cuda13]'); the code itself is sent
# from here. For this script, here and on the head: pip install 'ray[default]', of one version.
# A cluster is begun by hand with
#
#   ray start --head --dashboard-host=0.0.0.0   # on one machine
#   ray start --address=head:6379               # on each other
#
# or by `ray up` or KubeRay. COMMAND=m2l_jax.decode decodes. After a stop, the same command goes on:
#
#   ray job stop --address=http://head:8265 ID
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) || { echo "usage: ADDRESS=http://head:8265 $0 --dtype=bfloat16 --input=FOLDER --output=FOLDER [--checkpoint=… --ray_cpus=4 …]" >&2; exit 1; }
[[ ${ADDRESS:-} ]] || { echo "error: ADDRESS is not set: export ADDRESS=http://head:8265" >&2; exit 1; }
command -v ray >/dev/null || { echo "error: there is no ray here: pip install 'ray[default]'" >&2; exit 1; }

exec ray job submit --address="$ADDRESS" --working-dir=. --runtime-env-json='{"excludes": [".git"]}' -- \
  python -m "${COMMAND:-m2l_jax.encode}" --runner=ray "$@"
