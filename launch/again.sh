#!/usr/bin/env bash
# Runs a command again for as long as it exits with 75: interrupted, and to be continued.
#
#   launch/again.sh python -m m2l_jax.train --config=configs/default.py --workdir=/runs/first
#
# SIGTERM and Ctrl-C are passed on, and then it is not run again. RESTARTS=10 and PAUSE=5 (seconds)
# say how often and how soon. The exit code is the command's last one.
set -euo pipefail

(($#)) || { echo "usage: [RESTARTS=10] [PAUSE=5] $0 COMMAND ARGUMENTS" >&2; exit 1; }

child='' stopping='' interrupted=''
# shellcheck disable=SC2329 # called by the trap
pass_on() {
  stopping=1 interrupted=1
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap pass_on TERM INT

for ((run = 0; ; run++)); do
  # In a group of its own, so that Ctrl-C reaches it once, through this script: a second signal
  # would end it before it has saved.
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  [[ -z $stopping ]] || kill -TERM "$child" 2>/dev/null || true
  interrupted=1
  while [[ $interrupted ]]; do # a signal ends `wait`, not the command
    interrupted='' code=0
    wait "$child" || code=$?
  done
  child=''
  if ((code != 75 || run == ${RESTARTS:-10})) || [[ $stopping ]]; then exit "$code"; fi
  echo "$0: exit code 75, restart $((run + 1)) of ${RESTARTS:-10}" >&2
  sleep "${PAUSE:-5}" || true # Ctrl-C ends it too
  [[ -z $stopping ]] || exit "$code"
done
