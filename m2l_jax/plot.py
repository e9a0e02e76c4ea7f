"""Writes the curves of a training run as JSON and as a picture.

    python -m m2l_jax.plot --workdir=/runs/first --output=out

`out/curves.json` holds each curve by its name in TensorBoard, as `step` and `value`, null where not
finite; `out/curves.png` shows the loss, the latents' spread and, if `evaluation.path` was set, the
figures of the held-out clips.
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_WORKDIR = flags.DEFINE_string('workdir', None, "The training run's folder.")
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for curves.json and curves.png.')
flags.mark_flags_as_required(['workdir', 'output'])


def main() -> None:
    """Parses the flags and writes the files."""
    from m2l_jax.evaluation.pictures import write_curves
    from m2l_jax.interface.errors import InputError
    from m2l_jax.training.curves import read_curves

    curves = read_curves(_WORKDIR.value)
    if not curves:
        raise InputError(f'{_WORKDIR.value} holds no curves: pass the --workdir of a training run')
    write_curves(curves, _OUTPUT.value, pathlib.Path(_WORKDIR.value).resolve().name)
    last = max(max(curve) for curve in curves.values())
    print(f'{_OUTPUT.value}/curves.json, curves.png: {len(curves)} curves up to step {last}')


if __name__ == '__main__':
    command.run(main)
