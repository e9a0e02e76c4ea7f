"""Compares this implementation with the PyTorch package, stage by stage.

    python -m m2l_jax.compare --torch-checkpoint=music2latent.pt --audio=clip.wav
    python -m m2l_jax.compare --random

Builds both models from one file, runs both on the same audio and the same decoding noise, and exits
with code 1 if a stage is farther from the reference than its tolerance. `--random` takes a
full-size reference with random weights in all layers, also in those that start from zero.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = flags.DEFINE_string(
    'torch_checkpoint',
    None,
    '.pt or .safetensors file, hf://user/model, or a packaged model: small.',
)
_RANDOM = flags.DEFINE_boolean('random', False, 'Compare with random weights instead of a file.')
_AUDIO = flags.DEFINE_string('audio', None, 'Audio file; bundled music if not given.')
_SECONDS = command.define_finite_float('seconds', 3.0, 'Seconds of the audio to take.', 0.1)
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of this computation.')
_JSON = flags.DEFINE_boolean('json', False, 'Print JSON instead of a table.')
_BUNDLED = pathlib.Path(__file__).parent / 'assets' / 'heldout' / 'greensleeves.ogg'


def main() -> None:
    """Parses the flags, prints the stages, and exits with 1 over tolerance."""
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.evaluation.parity import compare_file, describe_stages
    from m2l_jax.interface.errors import InputError
    from m2l_jax.interface.paths import to_json

    if _RANDOM.value == (_CHECKPOINT.value is not None):
        raise InputError('pass either --torch-checkpoint=FILE or --random')
    use_compile_cache()
    audio = _AUDIO.value or _BUNDLED
    stages = compare_file(_CHECKPOINT.value, audio, _SECONDS.value, _DTYPE.value)
    if _JSON.value:
        rows = [{**dataclasses.asdict(stage), 'passed': stage.passed} for stage in stages]
        print(to_json({'dtype': _DTYPE.value, 'stages': rows}))
    else:
        print(describe_stages(stages))
    sys.exit(0 if all(stage.passed for stage in stages) else 1)


if __name__ == '__main__':
    command.run(main)
