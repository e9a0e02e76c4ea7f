"""A folder with an exported codec: programs, weights, and what their user has to know."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import jax

from m2l_jax.codec.arrays import as_whole
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.exporting import saved_model, stablehlo
from m2l_jax.exporting.functions import Function, export_functions
from m2l_jax.exporting.readme import write_readme
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import PathLike, new_folder, write_json
from m2l_jax.model.autoencoder import Music2Latent

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
FORMATS = {
    'stablehlo': (stablehlo.write_program, stablehlo.LOAD, 'jax'),
    'saved_model': (saved_model.write_saved_model, saved_model.LOAD, 'tensorflow'),
}
DTYPES = ('float32', 'bfloat16')


def export_codec(
    codec: EncoderDecoder,
    output: PathLike,
    format: str = 'stablehlo',
    platforms: str | Sequence[str] = ('cpu', 'cuda', 'tpu'),
    dtype: str = 'float32',
    denoising_steps: int = 1,
) -> int:
    """Writes encoder and decoder as programs that run without this package.

    The folder has a README.md, with a program for an audio file, and a manifest.json; both give
    the shape and meaning of each argument.

    Args:
      codec: the model.
      output: folder that is not there or empty.
      format: 'stablehlo', which `jax.export` reads, or 'saved_model', which TensorFlow reads.
      platforms: of `PLATFORMS`, perhaps with commas; the programs run on these alone.
      dtype: of the computation, of `DTYPES`.
      denoising_steps: evaluations of the model in decoding.

    Returns:
      The bytes written.

    Raises:
      InputError: for another format, platform or dtype, a folder that holds something, or one that
        cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f'format={format!r} must be one of {", ".join(FORMATS)}')
    platforms = platforms.split(',') if isinstance(platforms, str) else platforms
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise InputError(f'platforms={",".join(platforms)!r} must be of {", ".join(PLATFORMS)}')
    if dtype not in DTYPES:
        raise InputError(f'dtype={dtype!r} must be one of {", ".join(DTYPES)}')
    denoising_steps = as_whole('denoising_steps', denoising_steps, 1)
    # The codec's own kernels are for its device alone.
    model = Music2Latent(dataclasses.replace(codec.config, dtype=dtype))
    with _complete_folder(output) as folder:
        functions = export_functions(model, jax.device_get(codec.params), denoising_steps)
        write, load, packages = FORMATS[format]
        write(folder, functions, platforms)
        manifest = _manifest(codec, functions, format, platforms, dtype, denoising_steps)
        write_json(folder / 'manifest.json', manifest)
        readme = write_readme(functions, manifest, load, packages)
        (folder / 'README.md').write_text(readme, encoding='utf-8')
        return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def _manifest(
    codec: EncoderDecoder,
    functions: Sequence[Function],
    format: str,
    platforms: Sequence[str],
    dtype: str,
    denoising_steps: int,
) -> dict[str, object]:
    return {
        'format': format,
        'platforms': list(platforms),
        'dtype': dtype,
        'denoising_steps': denoising_steps,
        'model': codec.model_id,
        'sample_rate': codec.sample_rate,
        'samples_per_latent': codec.samples_per_latent,
        'reach': codec.reach,
        'audio_channels': codec.config.audio_channels,
        'latent_channels': codec.config.latent_channels,
        'scale': codec.config.latent_scale,
        'levels': codec.config.levels if codec.config.is_discrete else None,
        'jax': jax.__version__,
        'functions': {
            function.name: {
                'arguments': [dataclasses.asdict(each) for each in function.arguments],
                'result': dataclasses.asdict(function.result),
            }
            for function in functions
        },
    }


@contextlib.contextmanager
def _complete_folder(output: PathLike) -> Iterator[pathlib.Path]:
    """Yields a folder to write into, which becomes `output` once the block is through."""
    target = pathlib.Path(output).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f'{output} exists and is no empty folder: choose another --output')
    with (
        new_folder(target.parent),
        tempfile.TemporaryDirectory(
            prefix='.m2l_jax-', dir=target.parent, ignore_cleanup_errors=True
        ) as made,
    ):
        folder = pathlib.Path(made, 'export')
        try:
            folder.mkdir()
            yield folder
            os.replace(folder, target)
        except OSError as error:
            raise InputError(
                f'{output} cannot be written ({error.strerror or first_line(error)})'
            ) from None
