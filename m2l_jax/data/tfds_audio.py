"""The dataset of audio segments: what a record holds."""

import numpy as np
import tensorflow_datasets as tfds

from m2l_jax.data.record_dataset import RecordFormat


def _features() -> tfds.features.FeaturesDict:
    """What a record holds: a segment of one channel of a file."""
    return tfds.features.FeaturesDict(
        {
            # As bytes, which are read at once, a list of numbers one by one.
            'audio': tfds.features.Tensor(
                shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
            ),
            'sample_rate': np.int32,  # of the audio here, Hz
            'source': tfds.features.Text(),  # the file's path below the input folder
            'offset': np.int64,  # of the first sample, in the resampled file
            'channel': np.int32,
            'channels': np.int32,  # of the file
            'source_sample_rate': np.int32,  # of the file, Hz
            'peak': np.float32,  # largest magnitude, before clipping; full scale is 1
            'rms': np.float32,
        }
    )


SEGMENTS = RecordFormat('m2l_audio', '1.0.0', _features())
