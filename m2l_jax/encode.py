"""Encodes audio files into latents.

    python -m m2l_jax.encode --checkpoint=DIR --input=song.flac --output=latents
    python -m m2l_jax.encode --checkpoint=music2latent.pt --input=FOLDER --output=latents

Writes an .npz a file (or .npy with a .npy.json beside it), a folder's tree mirrored, with sample
rate, length, scale and model id. A file that cannot be encoded is named, the others are done, and
the exit code is 1. Without --checkpoint the authors' released weights are fetched (CC BY-NC 4.0).
"""

import sys

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Folder of a training run or a conversion, .pt or .safetensors file.'
)
_INPUT = flags.DEFINE_string('input', None, 'Audio file or folder of them.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the latents.')
_FORMAT = flags.DEFINE_enum('format', 'npz', ['npz', 'npy'], 'Of the files written.')
_PAD = flags.DEFINE_boolean(
    'pad',
    False,
    'Complete the last latent vector with silence; otherwise up to 93 ms at the end are dropped, '
    'as the PyTorch package does.',
)
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
_LENGTH = flags.DEFINE_integer('max_waveform_length', None, 'Samples in a chunk; a minute if none.')
_BATCH = flags.DEFINE_integer('max_batch_size', None, 'Chunks and channels encoded at once.')
flags.mark_flags_as_required(['input', 'output'])


def main() -> None:
    """Parses the flags and encodes every file."""
    from m2l_jax.audio.files import AUDIO_SUFFIXES
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.corpus import worker
    from m2l_jax.interface.paths import make_folder

    jobs = worker.plan_jobs(_INPUT.value, AUDIO_SUFFIXES, _OUTPUT.value, f'.{_FORMAT.value}')
    codec = EncoderDecoder(_CHECKPOINT.value, dtype=_DTYPE.value)
    make_folder(_OUTPUT.value)
    chunking = {'max_waveform_length': _LENGTH.value, 'max_batch_size': _BATCH.value}
    failures = worker.run_jobs(
        jobs, lambda path, target: worker.encode_file(codec, path, target, _PAD.value, **chunking)
    )
    if failures:
        print(f'{failures} of {len(jobs)} files could not be encoded', file=sys.stderr)
        sys.exit(command.EXIT_INPUT_ERROR)


if __name__ == '__main__':
    command.run(main)
