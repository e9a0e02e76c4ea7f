"""Plays latents: decodes a file of them to standard output, as WAV, while it is heard.

    python -m m2l_jax.play --checkpoint=DIR --input=song.npz | aplay
    python -m m2l_jax.play --checkpoint=DIR --input=song.npz | ffplay -nodisp -autoexit -

The audio begins once the first chunk is decoded. It is what `m2l_jax.decode` writes with the same
--chunk_seconds and --overlap, in 16 bits: shorter chunks begin earlier and sound a little worse.
"""

import os
import sys

from absl import flags

from m2l_jax.codec.chunks import STREAMED_CHUNK_SECONDS, STREAMED_OVERLAP_SECONDS
from m2l_jax.corpus import flags as corpus_flags
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

command.define_checkpoint()
corpus_flags.define_computation(chunk_seconds=STREAMED_CHUNK_SECONDS)
corpus_flags.define_decoding(overlap=STREAMED_OVERLAP_SECONDS)
_INPUT = flags.DEFINE_string('input', None, 'File of latents.')
_FLOAT = flags.DEFINE_boolean('float', False, 'Writes 32-bit floats, not 16-bit integers.')
flags.mark_flags_as_required(['input'])


def main() -> None:
    """Parses the flags and writes to standard output."""
    if sys.stdout is None or sys.stdout.isatty():  # None if it is closed
        raise InputError('this writes a WAV: pipe it on, `| aplay`, or `> song.wav`')
    from m2l_jax.audio.pipes import write_wav
    from m2l_jax.corpus.decode import stream_file
    from m2l_jax.corpus.models import load_codec

    values = flags.FLAGS
    codec = load_codec(values.checkpoint, values.dtype)
    settings = corpus_flags.decode_settings(codec)
    blocks, sample_rate, samples = stream_file(_INPUT.value, codec, settings)
    try:
        write_wav(sys.stdout.buffer, blocks, sample_rate, samples, _FLOAT.value)
    except BrokenPipeError:  # its reader has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise InputError(f'standard output cannot be written ({error.strerror})') from None


if __name__ == '__main__':
    command.run(main)
