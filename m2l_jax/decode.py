"""Decodes latents into audio: a file, or all that `m2l_jax.encode` has made of a corpus.

    python -m m2l_jax.decode --checkpoint=DIR --input=latents --output=audio

Pass the checkpoint that the latents were encoded with. A second run does what is missing.
OUTPUT/failures.csv names files that cannot be decoded; the exit code is 1 only if no file could be.

It decodes latents of a generative model too: a .npy or .npz with an array of floats,
[64, frames], [channels, 64, frames] or, for a file each, [batch, channels, 64, frames].

    latents = sample(model)  # [8, 64, 215]: 8 pieces of 20 s, mono
    np.save('generated.npy', latents[:, None])  # [8, 1, 64, 215]
    python -m m2l_jax.decode --checkpoint=DIR --input=generated.npy --output=audio

makes audio/generated-0.wav to generated-7.wav. Latents are scaled to unit variance on music, as
`encode` writes them; those of a model without that scaling take --scale=1.
"""

import os
from typing import TYPE_CHECKING

from absl import flags

from m2l_jax.corpus import flags as corpus_flags
from m2l_jax.interface import command

if TYPE_CHECKING:
    from m2l_jax.corpus.plan import RunReport

corpus_flags.define_model()
corpus_flags.define_sharing()
flags.DEFINE_string(
    'input',
    None,
    'File of latents, folder of them, glob pattern, list (.txt, a path a line) or dataset of '
    'latents; several with commas.',
)
flags.DEFINE_string('output', None, 'Folder for the audio: new, or of an earlier run of the same.')
_FORMAT = flags.DEFINE_enum('format', 'wav', ['wav', 'flac', 'ogg'], 'Of the audio files.')
corpus_flags.define_decoding(overlap=2.0)


def main() -> None:
    """Parses the flags and decodes, or checks what was decoded."""
    corpus_flags.run(_decode)


def _decode(source: str, output: str) -> 'str | RunReport':
    from m2l_jax.corpus import inputs
    from m2l_jax.corpus.decode import DecodeJob, check_first
    from m2l_jax.corpus.run import run_single

    checkpoint, codec, opened = corpus_flags.open_model()
    # An error comes before the folder is taken.
    settings = corpus_flags.decode_settings(codec, _FORMAT.value)
    folder = os.path.abspath(output)
    job = DecodeJob(checkpoint, settings, folder, flags.FLAGS.batch_size, opened)
    if corpus_flags.is_alone(source):
        return run_single(job, source, output)
    items = inputs.latent_items(source, output)
    check_first(items[0], codec)
    inputs.check_mirrored(items, f'.{_FORMAT.value}')
    return corpus_flags.run_corpus(lambda shards: job, settings, items)


if __name__ == '__main__':
    command.run(main)
