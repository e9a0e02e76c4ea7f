"""Writes the curves of a training run as JSON and as a picture.

    python -m m2l_jax.plot --workdir=/runs/first --output=out

`out/curves.json` holds each curve by its name in TensorBoard, as `step` and `value`, null where
that was not finite; `out/curves.png` the loss and, if `evaluation.path` was set, what held-out
clips told.
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_WORKDIR = flags.DEFINE_string('workdir', None, "The training run's folder.")
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for curves.json and curves.png.')
flags.mark_flags_as_required(['workdir', 'output'])


def main() -> None:
    """Parses the flags and writes the files."""
    from m2l_jax.evaluation.curve_picture import draw_curves
    from m2l_jax.evaluation.report import save_picture
    from m2l_jax.interface.errors import InputError
    from m2l_jax.interface.json_files import write_json
    from m2l_jax.interface.paths import new_folder
    from m2l_jax.training.curves import read_curves

    curves = read_curves(_WORKDIR.value)
    if not curves:
        raise InputError(f'{_WORKDIR.value} holds no curves: pass the --workdir of a training run')
    as_json = {
        name: {'step': list(curve), 'value': list(curve.values())} for name, curve in curves.items()
    }
    picture = draw_curves(curves, pathlib.Path(_WORKDIR.value).resolve().name)
    with new_folder(_OUTPUT.value) as folder:
        write_json(folder / 'curves.json', as_json, indent=None)
        save_picture(folder / 'curves.png', picture)
    last = max(max(curve) for curve in curves.values())
    print(f'{folder}/curves.json, curves.png: {len(curves)} curves up to step {last}')


if __name__ == '__main__':
    command.run(main)
