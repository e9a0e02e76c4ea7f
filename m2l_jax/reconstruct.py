"""Encodes and decodes an audio file, to hear and see what a checkpoint keeps of it.

    python -m m2l_jax.reconstruct --checkpoint=DIR --input=a.wav --output=DIR

Writes a.wav (the reconstruction) and a.png into the output folder and prints a line of figures.
"""

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = command.define_checkpoint()
_INPUT = flags.DEFINE_string('input', None, 'Audio file.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the WAV and the PNG.')
_STEPS = flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
_SEED = command.define_seed()
_TOKENS = flags.DEFINE_boolean('tokens', False, 'Decode the tokens of a discrete model.')
flags.mark_flags_as_required(['checkpoint', 'input', 'output'])


def main() -> None:
    """Parses the flags and prints the figures."""
    # Imported here, so that --help and a mistyped flag answer at once.
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.evaluation.metrics import describe
    from m2l_jax.evaluation.reconstruction import reconstruct_file

    use_compile_cache()
    codec = EncoderDecoder(_CHECKPOINT.value, progress=True)
    options = _STEPS.value, _SEED.value, _TOKENS.value
    figures = reconstruct_file(codec, _INPUT.value, _OUTPUT.value, *options)
    print(
        f'{_INPUT.value}: {describe(figures)}, {figures["seconds"]:.1f} s, '
        f'{figures["real_time_factor"]:.2f} times real time (compilation included)'
    )


if __name__ == '__main__':
    command.run(main)
