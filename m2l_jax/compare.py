"""Compares this implementation with the PyTorch package, stage by stage.

    python -m m2l_jax.compare --torch-checkpoint=music2latent.pt --audio=clip.wav
    python -m m2l_jax.compare --random

Builds both models from one file, runs both on the same audio and the same decoding noise, and exits
with code 1 if a stage is farther from the reference than its tolerance. `--random` takes a
full-size reference with random weights in all layers, also in those that start from zero.
"""

import pathlib
import sys

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = flags.DEFINE_string(
    'torch_checkpoint', None, '.pt or .safetensors file, or the name of a packaged model: small.'
)
_RANDOM = flags.DEFINE_boolean('random', False, 'Compare with random weights instead of a file.')
_AUDIO = flags.DEFINE_string('audio', None, 'Audio file; bundled music if not given.')
_SECONDS = command.define_finite_float('seconds', 3.0, 'How much of the audio to take.', 0.1)
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of this computation.')
_JSON = flags.DEFINE_boolean('json', False, 'Print JSON instead of a table.')
_BUNDLED = pathlib.Path(__file__).parent / 'assets' / 'heldout' / 'greensleeves.ogg'


def main() -> None:
    """Parses the flags, prints the stages, and exits with 1 over tolerance."""
    from m2l_jax.codec.arrays import as_waveform
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.evaluation.parity import compare_with_reference

    use_compile_cache()
    config, tensors = _read_model()
    rate = config.spectrogram.sample_rate
    waveform = as_waveform(_AUDIO.value or _BUNDLED, rate)[:, : round(_SECONDS.value * rate)]
    stages = compare_with_reference(config, tensors, waveform, _DTYPE.value)
    print(_as_json(stages) if _JSON.value else _as_table(stages))
    sys.exit(0 if all(stage.passed for stage in stages) else 1)


def _read_model():
    from m2l_jax.codec.weights import locate_weights
    from m2l_jax.interface.errors import InputError
    from m2l_jax.model.config import ModelConfig
    from m2l_jax.torch_weights.conversion import read_torch_model
    from m2l_jax.torch_weights.reference import random_tensors

    if _RANDOM.value == (_CHECKPOINT.value is not None):
        raise InputError('pass either --torch-checkpoint=FILE or --random')
    if _RANDOM.value:
        return ModelConfig(), random_tensors(ModelConfig())
    return read_torch_model(locate_weights(_CHECKPOINT.value))


def _as_table(stages) -> str:
    rows = [('stage', 'shape', 'max abs error', 'relative L2', 'SNR dB', 'at least', '')]
    rows += [
        (
            stage.name,
            '×'.join(map(str, stage.shape)),
            f'{stage.max_abs_error:.1e}',
            f'{stage.relative_l2:.1e}',
            f'{stage.snr:.1f}',
            f'{stage.tolerance:.0f}',
            'ok' if stage.passed else 'TOO FAR',
        )
        for stage in stages
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _as_json(stages) -> str:
    import dataclasses

    from m2l_jax.interface.json_files import to_json

    rows = [{**dataclasses.asdict(stage), 'passed': stage.passed} for stage in stages]
    return to_json({'dtype': _DTYPE.value, 'stages': rows})


if __name__ == '__main__':
    command.run(main)
