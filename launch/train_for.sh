#!/usr/bin/env bash
# Trains for MINUTES and packs the results to take along: for machines that are lent.
#
#   MINUTES=9 OUTPUT=out launch/train_for.sh --config=configs/small.py:20000 --config.data.path=/data/music --workdir=/runs/small
#
# Run it again, and it goes on from the newest checkpoint in the workdir. OUTPUT gets
#
#   run/          the newest checkpoint and the curves, as files of PART_MEGABYTES=15 at most
#   curves.json   and curves.png, as far as training has come
#
# On another machine, FROM=out/run starts a workdir without checkpoints from what was packed.
# FORM=light packs 2 bytes a parameter, exact 16; see tools.carry. MINUTES includes compilation; an
# evaluation still finishes, and packing comes after.
# Exits with 0 once all steps are done, with 75 if there are more to do, and with training's own code
# if that failed: what it had saved until then is packed all the same. Paths start at the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

workdir=''
for argument; do
  if [[ $argument == --workdir=?* ]]; then workdir=${argument#*=}; fi
done
if [[ ! ${MINUTES:-} || ! ${OUTPUT:-} || ! $workdir ]]; then
  echo "usage: MINUTES=9 OUTPUT=FOLDER [FROM=FOLDER] [FORM=light] [PART_MEGABYTES=15] $0 --config=FILE --workdir=FOLDER [--config.field=value …]" >&2
  exit 1
fi

# A folder alone may be left of an unpacking or a training that was stopped before it saved.
saved_steps() {
  find "$workdir/checkpoints" -maxdepth 1 -regex '.*/[0-9]+' 2>/dev/null || true
}

if [[ ${FROM:-} && ! $(saved_steps) ]]; then
  [[ -f $FROM/manifest.json ]] || { echo "error: FROM=$FROM holds no manifest.json: pass the folder run/ of an OUTPUT" >&2; exit 1; }
  python -m tools.carry --from="$FROM" --to="$workdir"
fi

before=$(saved_steps)
code=0
python -m m2l_jax.train --minutes="$MINUTES" "$@" || code=$?
failed=''
((code == 0 || code == 75)) || failed=1
[[ ! $failed || $(saved_steps) != "$before" ]] || exit "$code"

packing=0
python -m tools.carry --from="$workdir" --to="$OUTPUT/run" --form="${FORM:-light}" --part_megabytes="${PART_MEGABYTES:-15}" || packing=$?
python -m m2l_jax.plot --workdir="$workdir" --output="$OUTPUT" || true # there may be none yet
[[ $failed ]] || ((packing == 0)) || exit "$packing"
exit "$code"
