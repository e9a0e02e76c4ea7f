#!/usr/bin/env bash
# Rehearses training on several machines: several processes on this one, each with fake CPU devices.
#
#   PROCESSES=2 DEVICES=2 launch/local_multi_process.sh --config=configs/demo.py --workdir=/tmp/rehearsal
#
# Each line of output begins with the number of its process. SIGTERM and Ctrl-C are passed on to all.
# The exit code is that of the first error, or else 75 if a process ended with it, or else 0.
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) || { echo "usage: [PROCESSES=2] [DEVICES=2] $0 --config=FILE --workdir=FOLDER [--config.field=value …]" >&2; exit 1; }

processes=${PROCESSES:-2}
port=$(python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=${DEVICES:-2}"

running=() stopping=''
stop() {
  stopping=1
  ((${#running[@]} == 0)) || kill -TERM "${running[@]}" 2>/dev/null || true
}
trap stop TERM INT

# Each in a group of its own, so that Ctrl-C reaches it once, through this script: a second signal
# would end it before it has saved.
set -m
for ((number = 0; number < processes; number++)); do
  python -m m2l_jax.train "$@" --coordinator="localhost:$port" --num_processes="$processes" \
    --process_id="$number" </dev/null > >(exec sed -u "s/^/[$number] /") 2>&1 &
  running[number]=$!
done
set +m
[[ -z $stopping ]] || stop

# Where bash would quote, at length, the command that was killed; the processes have their own.
exec 2>/dev/null

worst=0
while ((${#running[@]})); do
  sleep 0.2 || true # Ctrl-C ends it too
  for number in "${!running[@]}"; do
    kill -0 "${running[number]}" 2>/dev/null && continue
    code=0
    wait "${running[number]}" || code=$?
    unset "running[number]"
    echo "[$number] exit code $code"
    if ((code != 0 && (worst == 0 || worst == 75))); then worst=$code; fi
    # After an error the others might wait for the one that failed.
    if ((code != 0 && code != 75)) && [[ -z $stopping ]]; then stop; fi
  done
done
exit "$worst"
