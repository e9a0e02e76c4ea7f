"""Carries a training run to a machine that does not see this one's disks.

    python -m m2l_jax.carry --from=/runs/first --to=parts                  here
    python -m m2l_jax.carry --from=parts --to=/runs/first                  there

The first writes the newest checkpoint and the curves into files of a limited size with checksums,
the second makes of them a folder with which `m2l_jax.train` goes on. With --form=exact it goes on
to the last bit: 16 bytes a parameter. With --form=light only the averaged parameters come along, in
float16, 2 bytes each: training goes on from them, and RAdam warms up anew.
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_FROM = flags.DEFINE_string('from', None, "A training run's folder, or one that this has written.")
_TO = flags.DEFINE_string('to', None, 'The folder to write.')
_FORM = flags.DEFINE_enum('form', 'exact', ['exact', 'light'], 'How much of the state to pack.')
_MEGABYTES = command.define_finite_float(
    'part_megabytes', 1000.0, 'Of each file at most, 10^6 bytes.', lower_bound=0.001
)
flags.mark_flags_as_required(['from', 'to'])


def main() -> None:
    """Packs a run, or unpacks one, whichever --from is."""
    from m2l_jax.checkpoint.parts import MANIFEST, read_parts, write_parts
    from m2l_jax.interface.paths import new_folder
    from m2l_jax.training.carrying import pack, unpack

    source = pathlib.Path(_FROM.value)
    if (source / MANIFEST).exists():
        content, about = read_parts(source)
        unpack(content, about, _TO.value)
        print(f'{source} -> {_TO.value}: step {about["step"]}, {about["form"]}')
        return
    with new_folder(_TO.value) as target:
        content, about = pack(_FROM.value, _FORM.value)
        paths = write_parts(target, content, int(_MEGABYTES.value * 1e6), about)
    size = sum(path.stat().st_size for path in paths)
    print(f'{source} -> {target}: step {about["step"]}, {size / 1e6:.1f} MB in {len(paths)} files')


if __name__ == '__main__':
    command.run(main)
