"""The tf.data input pipeline: batches of spectrogram or waveform crops, read ahead."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from m2l_jax.audio.planes import MONO, to_planes
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.data.config import DataConfig
from m2l_jax.data.crops import CropReader


def read_batches(
    reader: CropReader,
    config: DataConfig,
    spectrogram: SpectrogramConfig,
    steps: range,
    rows: range,
    layout: str = MONO,
) -> Iterator[np.ndarray]:
    """Yields this process's rows of each step's batch.

    Args:
      reader: reads a crop.
      config: representation, parallelism and read-ahead.
      spectrogram: the representation's constants.
      steps: consecutive steps.
      rows: rows of the global batch that this process feeds.
      layout: of the planes, see `to_planes`; the reader's crops have its audio channels.

    Yields:
      `[len(rows), F, T, C]` spectrograms, or waveforms as the reader gives them, float32.

    Raises:
      InputError: if hardly anything in the corpus is usable.
    """
    tf.config.set_visible_devices([], 'GPU')  # whose memory JAX needs
    is_waveform = config.representation == 'waveform'
    failures: list[Exception] = []

    def load(number: np.ndarray) -> np.ndarray:
        step, row = divmod(int(number), len(rows))
        try:
            waveform = reader.read(step, rows[row])
        except Exception as error:
            failures.append(error)
            raise
        return waveform if is_waveform else to_planes(waveform, spectrogram, layout)

    def load_in_graph(number: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(load, [number], tf.float32, stateful=False)

    options = tf.data.Options()
    options.deterministic = True
    # By default, TensorFlow starts a thread for each core beside those of JAX.
    options.threading.private_threadpool_size = config.workers
    dataset = (
        tf.data.Dataset.range(steps.start * len(rows), steps.stop * len(rows))
        .map(load_in_graph, num_parallel_calls=config.workers)
        .batch(len(rows), drop_remainder=True)
        .prefetch(config.prefetch)
        .with_options(options)
    )
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError:
        # TensorFlow replaces an exception of `load` by its own, with the stack trace as text.
        if not failures:
            raise
        raise failures[0] from None
