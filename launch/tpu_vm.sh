#!/usr/bin/env bash
# Trains on a Cloud TPU slice of one host or many, from a machine with gcloud.
#
#   export NAME=my-tpu ZONE=us-central2-b TYPE=v4-32 SPOT=1
#   export SETUP='mkdir -p /tmp/bucket; mountpoint -q /tmp/bucket || gcsfuse --implicit-dirs my-bucket /tmp/bucket'
#   launch/tpu_vm.sh keep --config=configs/tpu_v4.py:v4-32 --config.data.path=/tmp/bucket/music --workdir=/tmp/bucket/runs/first
#
#   create         makes the TPU: TYPE=v4-8, VERSION=tpu-ubuntu2204-base (v5e: v2-alpha-tpuv5-lite,
#                  v5p: v2-alpha-tpuv5, v6e: v2-alpha-tpuv6e); SPOT=1 for one that may be preempted
#   copy           this folder as git sees it, new files included, and what it needs, to all its hosts; then runs SETUP there
#   run ARGUMENTS  trains on all hosts, in the background; again on exit code 75
#   tail           follows the log of host WORKER=0
#   stop           lets the training save and end
#   delete         deletes the TPU
#   keep ARGUMENTS all of it, again after each preemption, until the training has ended; checks every POLL=60 seconds
#
# NAME and ZONE must be set, PROJECT may be. Data and --workdir are absolute paths, the same on all hosts; --workdir must
# be one place that outlives them. SETUP, run on every host, mounts it: a bucket with a hierarchical namespace, as above.
# VARIABLES='JAX_COMPILATION_CACHE_DIR=/tmp/bucket/compiled' sets variables for the training. `keep` stays in the
# foreground: run it in tmux.
set -euo pipefail

fail() { echo "error: $1" >&2; exit 1; }

tpu() { # VERB ARGUMENTS
  local verb=$1
  shift
  gcloud compute tpus tpu-vm "$verb" "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} --quiet
}

remote() { # COMMAND [WORKER]: in bash, in the home folder
  tpu ssh "$NAME" --worker="${2:-all}" --command="$1"
}

# The files of one training, in the home folder of each host.
readonly PID=m2l_jax.pid LOG=m2l_jax.log CODE=m2l_jax.exit
# By name too: after a restart of the host the number may be another process's.
readonly RUNS="grep -qs m2l_jax.train /proc/\$(cat $PID 2>/dev/null)/cmdline"
readonly SELF=launch/tpu_vm.sh

create() {
  tpu create "$NAME" --accelerator-type="${TYPE:-v4-8}" --version="${VERSION:-tpu-ubuntu2204-base}" ${SPOT:+--spot}
}

copy() {
  local archive
  archive=$(mktemp -d)/m2l_jax.tar.gz
  git ls-files -z --cached --others --exclude-standard | tar --null -T - -czf "$archive"
  tpu scp "$archive" "$NAME:" --worker=all
  rm -r "${archive%/*}"
  # The images' Python is too old: uv brings its own.
  remote "if $RUNS; then echo 'left as it is: it trains'; exit; fi
    set -e; rm -rf m2l_jax $CODE; mkdir m2l_jax; tar -xzf m2l_jax.tar.gz -C m2l_jax; cd m2l_jax
    curl -LsSf https://astral.sh/uv/install.sh | sh
    ~/.local/bin/uv venv --python=3.12
    ~/.local/bin/uv pip install --requirement=requirements.txt '.[tpu]'
    cd; ${SETUP:-true}"
}

run() {
  # The outer shell outlives SIGTERM to write down the exit code.
  remote "if $RUNS; then echo 'it trains already'; exit; fi
    set -e; cd m2l_jax; rm -f ~/$CODE; export RESTARTS=${RESTARTS:-100}
    setsid nohup bash -c 'trap : TERM; launch/again.sh \"\$@\"; echo \$? > ~/$CODE' train \
      env ${VARIABLES:-} .venv/bin/python -m m2l_jax.train $(printf '%q ' "$@") >> ~/$LOG 2>&1 < /dev/null &
    echo \$! > ~/$PID"
}

stop() {
  # To the whole group: the shell that notes the exit code, and again.sh, which passes it on.
  remote "if $RUNS; then kill -TERM -- -\$(cat $PID); else echo 'it does not train'; fi"
}

state() { # READY, PREEMPTED, … as Google names them; MISSING, or UNKNOWN if there was no answer
  local answer
  if answer=$(tpu describe "$NAME" --format='value(state)' 2>&1); then
    grep -xE '[A-Z_]+' <<<"$answer" || echo UNKNOWN
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo MISSING
  else
    echo "$answer" >&2
    echo UNKNOWN
  fi
}

progress() { # of each host: the exit code, `runs`, or `new`; and `silent` if one does not answer
  remote "if $RUNS; then echo progress=runs; elif [ -e $CODE ]; then echo progress=\$(cat $CODE); else echo progress=new; fi" \
    2>/dev/null | sed -n 's/^progress=//p' || echo silent
}

keep() {
  local answer
  while true; do
    answer=$(state)
    [[ $answer != READY ]] || answer=$(progress)
    echo "$(date +%T) $NAME: ${answer//$'\n'/ }"
    # Each step by itself, as a command of its own: one that fails is tried again.
    case $answer in
      MISSING) "$SELF" create || true ;;
      PREEMPTED | TERMINATED | STOPPED) "$SELF" delete || true ;;
      # First: after one host restarts, the others may have stopped waiting for it.
      *new*) if "$SELF" copy; then "$SELF" run "$@" || true; fi ;;
      *[1-9]*)
        [[ $(sort -u <<<"$answer") != 75 ]] || fail "the training was stopped and has saved: $SELF run goes on"
        fail "the training ended with an error: $SELF tail shows it, $SELF run ARGUMENTS tries again, $SELF delete ends the costs"
        ;;
      *[A-Za-z]*) ;; # it is being made or repaired, it trains, or it does not answer
      *)
        echo "the training has ended: $SELF delete ends the costs, $SELF run ARGUMENTS starts another"
        return
        ;;
    esac
    sleep "${POLL:-60}"
  done
}

verb=${1:-}
case $verb in
  create | copy | run | tail | stop | delete | keep) ;;
  *) sed -n '2,/^set/{/^#/p}' "$0" | cut -c3- >&2; exit 1 ;;
esac
shift
[[ ${NAME:-} ]] || fail 'NAME is not set: export NAME=my-tpu'
[[ ${ZONE:-} ]] || fail 'ZONE is not set: export ZONE=us-central2-b'
command -v gcloud >/dev/null || fail 'gcloud is not there: see https://cloud.google.com/sdk/docs/install'
cd "$(dirname "$0")/.."
case $verb in
  tail) remote "tail -n 100 -F $LOG" "${WORKER:-0}" ;;
  delete) tpu delete "$NAME" ;;
  run | keep)
    (($#)) || fail "$verb needs the training's arguments: --config=FILE --workdir=FOLDER [--config.field=value …]"
    "$verb" "$@"
    ;;
  *) "$verb" ;;
esac
