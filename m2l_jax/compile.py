"""Compiles a config's training step, or the codec, for a TPU slice or GPUs without having them.

    python -m m2l_jax.compile --config=configs/tpu_v4.py --topology=v4-8
    python -m m2l_jax.compile --config=configs/tpu_v4.py:v4-32 --topology=v4:2x2x4 --json
    python -m m2l_jax.compile --config=configs/gpu.py --topology=h100 --what=encode

Prints memory, work and traffic of a chip; the exit code is 1 if the program does not fit. Needs
the compiler for TPUs, `pip install -e '.[tpu]'`, or for GPUs, `pip install -e '.[cuda]'`, and a
few minutes.
"""

import dataclasses

from absl import flags

from m2l_jax.interface import command

command.define_config()
_TOPOLOGY = flags.DEFINE_string(
    'topology',
    None,
    "A slice's name, v4-32, or its generation and bounds, v4:2x2x4; or GPUs: h100, h200, a100, "
    'h100:8, h100:2x8 (machines x GPUs).',
)
_WHAT = flags.DEFINE_enum(
    'what', 'train', ['train', 'encode', 'decode'], 'The training step, or a half of the codec.'
)
_SECONDS = flags.DEFINE_float(
    'seconds', 60.0, 'Audio in a chunk, for --what=encode and --what=decode.'
)
_CHUNKS = flags.DEFINE_integer(
    'chunks', 1, 'Chunks a chip, for --what=encode and --what=decode.', lower_bound=1
)
_EFFORT = flags.DEFINE_float(
    'effort',
    -1.0,
    'Effort of the compiler for TPUs, from -1 (quickest) to 1. Runs use 0, which takes five times '
    'as long.',
    lower_bound=-1.0,
    upper_bound=1.0,
)
_JSON = flags.DEFINE_bool('json', False, 'Prints JSON instead of lines.')
flags.mark_flags_as_required(['config', 'topology'])


def main() -> None:
    """Parses the flags and compiles."""
    from m2l_jax.compilation.fitting import compile_config
    from m2l_jax.interface.compilations import watch_compilations
    from m2l_jax.interface.paths import to_json
    from m2l_jax.training.config import TrainingConfig

    watch_compilations()
    config = command.read_config(TrainingConfig)
    report = compile_config(
        config, _TOPOLOGY.value, _WHAT.value, _SECONDS.value, _CHUNKS.value, _EFFORT.value
    )
    print(to_json(dataclasses.asdict(report)) if _JSON.value else report.describe())


if __name__ == '__main__':
    command.run(main)
