"""What TensorBoard shows of a run, written without TensorFlow."""

import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

_logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 30  # until TensorBoard can see what is written


class EventFile:
    """Scalars, audio and pictures in one event file.

    Writes in the caller's thread: tensorboardX's own writer has one of its own, and blocks its
    caller for ever once that has died of a full disk. Here the curves end, with a warning, and
    training goes on.
    """

    def __init__(self, folder: str | os.PathLike[str], suffix: str):
        """Makes the file; `suffix` tells it from others that were made in the same second."""
        self._folder = folder
        self._writer: EventsWriter | None = None
        self._flushed = time.monotonic()

        def make() -> None:
            self._writer = EventsWriter(str(pathlib.Path(folder) / 'events'), suffix)

        self._try(make)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers, each to the curve of its name."""
        for name, value in values.items():
            self._add(step, summary.scalar(name, value))

    def add_audio(self, step: int, tag: str, waveform: np.ndarray, sample_rate: int) -> None:
        """Adds `[channels, samples]`; more than two channels, which are not played, are mixed."""
        heard = waveform if len(waveform) <= 2 else waveform.mean(axis=0, keepdims=True)
        self._add(step, summary.audio(tag, heard.T, sample_rate))

    def add_picture(self, step: int, tag: str, picture: np.ndarray) -> None:
        """Adds `[height, width, 3]`, uint8."""
        self._add(step, summary.image(tag, picture, dataformats='HWC'))

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _add(self, step: int, what: summary.Summary) -> None:
        if self._writer is None:
            return
        event = Event(step=step, wall_time=time.time(), summary=what)
        self._try(lambda: self._writer.write_event(event))
        if self._writer is not None and time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._try(self._writer.flush)

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            self._writer = None
            _logger.warning(
                'curves for TensorBoard end here: %s cannot be written (%s)',
                self._folder,
                error.strerror or error,
            )
