"""Encodes audio into latents: a file, a folder, or a corpus on many machines.

    python -m m2l_jax.encode --checkpoint=DIR --input=song.flac --output=latents
    python -m m2l_jax.encode --checkpoint=DIR --input=/data/music --output=latents
    python -m m2l_jax.encode --checkpoint=DIR --input='/data/*/**/*.flac,list.txt' --format=tfds …

Run it again, and it does what is missing. A file that cannot be encoded is named in
OUTPUT/failures.csv, one that is too loud or silent in OUTPUT/warnings.csv, the others are done; the
exit code is 1 only if none could be. Without --checkpoint the authors' released weights are fetched
(CC BY-NC 4.0).
"""

import dataclasses

from absl import flags

from m2l_jax.corpus import flags as corpus_flags
from m2l_jax.interface import command

corpus_flags.define_model()
corpus_flags.define_sharing()
flags.DEFINE_string(
    'input',
    None,
    'Folder, glob pattern (** for any depth), audio file, list (.txt, a path a line) or dataset '
    '(its folder, or tfds:NAME[SPLIT]); several with commas.',
)
flags.DEFINE_string(
    'output', None, 'Folder for the latents: new, or of an earlier run of the same.'
)
_FORMAT = flags.DEFINE_enum(
    'format', 'npz', ['npz', 'npy', 'tfds'], 'A file for each input, or a TFDS dataset of records.'
)
_STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16', 'bfloat16'], 'In which latents are stored.'
)
_FEATURES = flags.DEFINE_boolean('features', False, 'Store those before the bottleneck instead.')
_CHANNELS = flags.DEFINE_enum(
    'channels', 'each', ['each', 'mono', 'mid_side'], 'What of several channels is encoded.'
)
_RATE = flags.DEFINE_integer('sample_rate', 44_100, 'In Hz, to which audio is resampled.')
_OVERLAP = flags.DEFINE_float(
    'overlap', 0.0, 'Seconds that chunks share; with 0 they are those of the PyTorch package.'
)
_PAD = flags.DEFINE_boolean(
    'pad',
    False,
    'Complete the last latent vector with silence; otherwise up to 93 ms at the end are dropped, '
    'as the PyTorch package does.',
)


def main() -> None:
    """Parses the flags and encodes, or checks what was encoded."""
    corpus_flags.run(_encode)


def _encode(source: str, output: str) -> None:
    from m2l_jax.corpus import inputs
    from m2l_jax.corpus.encode import EncodeJob, EncodeSettings
    from m2l_jax.corpus.models import chunking_of
    from m2l_jax.corpus.run import run_job, run_single

    checkpoint, codec = corpus_flags.open_model()
    settings = EncodeSettings(
        codec.model_id,
        _FORMAT.value,
        _STORAGE.value,
        'features' if _FEATURES.value else 'latents',
        codec.config.dtype,
        _RATE.value,
        flags.FLAGS.chunk_seconds,
        _OVERLAP.value,
        _CHANNELS.value,
        _PAD.value,
    )
    chunking_of(codec, settings, settings.sample_rate)  # an error comes before the folder is taken
    options = corpus_flags.run_options()

    def make_job(shards: int) -> EncodeJob:
        target = settings.target(codec.config, output, shards)
        opened = None if options.ray else codec
        return EncodeJob(checkpoint, settings, target, flags.FLAGS.batch_size, opened)

    is_alone = inputs.is_single_file(source) and not options.is_shared
    if is_alone and _FORMAT.value != 'tfds':
        print(run_single(make_job(1), source, output))
        return
    items, left_out = inputs.find_audio(source, output)
    if _FORMAT.value != 'tfds':
        inputs.check_mirrored(items, f'.{_FORMAT.value}', ', or write a dataset (--format=tfds)')
    shards, cut = corpus_flags.plan(items)
    claimed = dataclasses.asdict(settings) | cut
    report = run_job(make_job(len(shards)), shards, claimed, output, options, left_out)
    print(report.describe())
    report.check_any_done(output)


if __name__ == '__main__':
    command.run(main)
