#!/usr/bin/env bash
# Builds the package, installs the wheel into a new environment, and uses it from another folder.
#
#   PYTHON=python3.12 tests/installed.sh
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}

# From a copy of what git knows: a build leaves files behind, and takes those that it finds.
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$(mkdir "$work/source" && echo "$work/source")"
"$python" -m venv "$work/builder"
"$work/builder/bin/pip" install -qq build==1.6.1 twine==7.0.0
"$work/builder/bin/python" -m build --outdir "$work/dist" "$work/source" >"$work/build.log" ||
  { cat "$work/build.log"; exit 1; }
"$work/builder/bin/twine" check --strict "$work"/dist/*
wheel=$(echo "$work"/dist/*.whl)

"$python" -m venv "$work/environment"
"$work/environment/bin/pip" install -qq "$wheel"
cd "$work"
# As on a machine where nothing else is set.
alone() { env -i HOME="$work" PATH="$work/environment/bin:/usr/bin:/bin" JAX_PLATFORMS=cpu "$@"; }
music=$(alone python -c 'import m2l_jax, pathlib; print(pathlib.Path(m2l_jax.__file__).parent / "assets")')

for package in tensorflow torch; do
  if alone python -c "import $package" 2>/dev/null; then
    echo "the light install brought $package" >&2
    exit 1
  fi
done
alone m2l encode --checkpoint=small --input="$music/voice" --output=latents
alone m2l decode --checkpoint=small --input=latents --output=decoded
"$work/environment/bin/pip" install -qq "${wheel}[train]"
alone m2l train --config=overfit --workdir=run --config.train.steps=2 \
  --config.optimizer.warmup_steps=1 --config.model.base_channels=8 \
  --config.model.bottleneck_channels=32 --config.evaluation.path=
alone m2l encode --checkpoint=run --input="$music/voice" --output=latents_of_run
alone m2l evaluate --checkpoint=run --input="$music/voice" --output=report --media=1 \
  --untrained=0 --nolatent_gain
test -s report/index.html
