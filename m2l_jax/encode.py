"""Encodes audio into latents: a file, a folder, or a corpus on many machines.

    python -m m2l_jax.encode --checkpoint=DIR --input=song.flac --output=latents
    python -m m2l_jax.encode --checkpoint=DIR --input=/data/music --output=latents
    python -m m2l_jax.encode --checkpoint=DIR --input='/data/*/**/*.flac,list.txt' --format=tfds …

A second run does what is missing. OUTPUT/failures.csv names files that cannot be encoded, and
OUTPUT/warnings.csv those that are too loud or silent; the exit code is 1 only if no file could be
encoded. Without --checkpoint the authors' released weights are fetched (CC BY-NC 4.0).
"""

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
    'storage', 'float32', ['float32', 'float16', 'bfloat16'], 'Type of the stored numbers.'
)
_FEATURES = flags.DEFINE_boolean('features', False, 'Store features before the bottleneck.')
_TOKENS = flags.DEFINE_boolean(
    'tokens',
    False,
    'Store the tokens of a discrete model, integers of 8 bits from 0 on, with their levels.',
)
_CHANNELS = flags.DEFINE_enum(
    'channels',
    None,
    ['each', 'mono', 'mid_side', 'joint'],
    'Encode each channel, their mean, or mid and side; by default each. A stereo model encodes '
    'both channels together, joint, or their mean.',
)
_RATE = flags.DEFINE_integer('sample_rate', 44_100, 'In Hz; audio is resampled to it.')
_OVERLAP = flags.DEFINE_float(
    'overlap', 0.0, 'Seconds that chunks share; the PyTorch package has 0.'
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


def _kind_and_storage() -> tuple[str, str]:
    """The kind of what is stored, and its type."""
    from m2l_jax.corpus.store import TOKEN_DTYPE
    from m2l_jax.interface.errors import InputError

    if not _TOKENS.value:
        return 'features' if _FEATURES.value else 'latents', _STORAGE.value
    if _FEATURES.value or _STORAGE.present:
        raise InputError('--tokens stores integers of 8 bits: leave out --features and --storage')
    return 'tokens', TOKEN_DTYPE


def _encode(source: str, output: str) -> 'str | RunReport':
    from m2l_jax.codec.mixing import choose_mode
    from m2l_jax.corpus import inputs
    from m2l_jax.corpus.encode import EncodeJob, EncodeSettings
    from m2l_jax.corpus.models import chunking_of
    from m2l_jax.corpus.run import run_single

    kind, storage = _kind_and_storage()
    checkpoint, codec, opened = corpus_flags.open_model()
    if kind == 'tokens':
        codec.check_discrete()
    settings = EncodeSettings(
        codec.model_id,
        _FORMAT.value,
        storage,
        kind,
        codec.config.dtype,
        _RATE.value,
        flags.FLAGS.chunk_seconds,
        _OVERLAP.value,
        choose_mode(_CHANNELS.value, codec.config.audio_channels > 1),
        _PAD.value,
    )
    chunking_of(codec, settings, settings.sample_rate)  # an error comes before the folder is taken

    def make_job(shards: int) -> EncodeJob:
        target = settings.target(codec.config, output, shards)
        return EncodeJob(checkpoint, settings, target, flags.FLAGS.batch_size, opened)

    if corpus_flags.is_alone(source) and _FORMAT.value != 'tfds':
        return run_single(make_job(1), source, output)
    items, left_out = inputs.find_audio(source, output)
    if _FORMAT.value != 'tfds':
        inputs.check_mirrored(items, f'.{_FORMAT.value}', ', or write a dataset (--format=tfds)')
    return corpus_flags.run_corpus(make_job, settings, items, left_out=left_out)


if __name__ == '__main__':
    command.run(main)
