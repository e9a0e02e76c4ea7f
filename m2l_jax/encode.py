"""Encodes audio into latents: a file, a folder, or a corpus on many machines.

    python -m m2l_jax.encode --checkpoint=DIR --input=song.flac --output=latents
    python -m m2l_jax.encode --checkpoint=DIR --input=/data/music --output=latents
    python -m m2l_jax.encode --checkpoint=DIR --input='/data/*/**/*.flac,list.txt' --format=tfds …

Run it again, and it does what is missing. A file that cannot be encoded is named in
OUTPUT/failures.csv, the others are done; the exit code is 1 only if none could be. Without
--checkpoint the authors' released weights are fetched (CC BY-NC 4.0).
"""

from absl import flags

from m2l_jax.corpus import run_flags
from m2l_jax.interface import command

run_flags.define()
_INPUT = flags.DEFINE_string(
    'input',
    None,
    'Folder, glob pattern (** for any depth), audio file, list (.txt, a path a line) or dataset '
    '(its folder, or tfds:NAME[SPLIT]); several with commas.',
)
_OUTPUT = flags.DEFINE_string(
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
    """Parses the flags and encodes."""
    from m2l_jax.corpus import commands
    from m2l_jax.corpus.encoding import EncodeSettings

    run_flags.require('output')
    if flags.FLAGS.verify:
        commands.verify(_OUTPUT.value)
        return
    run_flags.require('input')
    commands.encode(
        _INPUT.value,
        _OUTPUT.value,
        lambda model_id, dtype: EncodeSettings(
            model_id,
            _FORMAT.value,
            _STORAGE.value,
            'features' if _FEATURES.value else 'latents',
            dtype,
            _RATE.value,
            flags.FLAGS.chunk_seconds,
            _OVERLAP.value,
            _CHANNELS.value,
            _PAD.value,
        ),
    )


if __name__ == '__main__':
    command.run(main)
