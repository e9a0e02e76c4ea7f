"""Writes encoder and decoder as programs that run without this package.

    python -m m2l_jax.export --checkpoint=DIR --output=exported
    python -m m2l_jax.export --checkpoint=DIR --output=exported --format=saved_model

`stablehlo` needs JAX alone to run, and `saved_model` TensorFlow alone. Both take any batch and any
length. OUTPUT/README.md says how they are loaded and called.
"""

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = command.define_checkpoint()
_OUTPUT = flags.DEFINE_string('output', None, 'Folder that is not there or empty.')
_FORMAT = flags.DEFINE_enum('format', 'stablehlo', ['stablehlo', 'saved_model'], 'Of the programs.')
_PLATFORMS = flags.DEFINE_list(
    'platforms', ['cpu', 'cuda', 'tpu'], 'That the programs run on: cpu, cuda, rocm, tpu.'
)
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
_STEPS = flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
flags.mark_flags_as_required(['output'])


def main() -> None:
    """Parses the flags and exports."""
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.exporting.folder import export_codec

    codec = EncoderDecoder(_CHECKPOINT.value)
    size = export_codec(
        codec, _OUTPUT.value, _FORMAT.value, _PLATFORMS.value, _DTYPE.value, _STEPS.value
    )
    print(f'{_OUTPUT.value}: {size / 1e6:.1f} MB, {_FORMAT.value}')


if __name__ == '__main__':
    command.run(main)
