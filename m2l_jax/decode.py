"""Decodes files of latents into audio.

    python -m m2l_jax.decode --checkpoint=DIR --input=latents --output=audio

Reads what `m2l_jax.encode` wrote, a file or a folder's tree, with the checkpoint that it was
encoded with. A file that cannot be decoded is named, the others are done, and the exit code is 1.
"""

import sys

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Folder of a training run or a conversion, .pt or .safetensors file.'
)
_INPUT = flags.DEFINE_string('input', None, 'File of latents or folder of them.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the audio.')
_FORMAT = flags.DEFINE_enum('format', 'wav', ['wav', 'flac', 'ogg'], 'Of the files written.')
_STEPS = flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the decoding noise.')
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
_LENGTH = flags.DEFINE_integer('max_waveform_length', None, 'Samples in a chunk; a minute if none.')
_BATCH = flags.DEFINE_integer('max_batch_size', None, 'Chunks and channels decoded at once.')
flags.mark_flags_as_required(['input', 'output'])


def main() -> None:
    """Parses the flags and decodes every file."""
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.corpus import store, worker
    from m2l_jax.interface.paths import make_folder

    jobs = worker.plan_jobs(_INPUT.value, store.SUFFIXES, _OUTPUT.value, f'.{_FORMAT.value}')
    codec = EncoderDecoder(_CHECKPOINT.value, dtype=_DTYPE.value)
    make_folder(_OUTPUT.value)
    options = {
        'denoising_steps': _STEPS.value,
        'seed': _SEED.value,
        'max_waveform_length': _LENGTH.value,
        'max_batch_size': _BATCH.value,
    }
    failures = worker.run_jobs(
        jobs, lambda path, target: worker.decode_file(codec, path, target, **options)
    )
    if failures:
        print(f'{failures} of {len(jobs)} files could not be decoded', file=sys.stderr)
        sys.exit(command.EXIT_INPUT_ERROR)


if __name__ == '__main__':
    command.run(main)
