"""The TensorBoard files of a training run, written and read without TensorFlow."""

import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

Curves = dict[str, dict[int, float]]

_logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 30
_ALL_SCALARS = {'scalars': 0, 'images': 1, 'audio': 1}


class EventFile:
    """Scalars, audio and pictures in one event file.

    On a full disk the curves end with a warning, and training goes on; tensorboardX's own writer,
    which has a thread, would block forever.

    Args:
      folder: of the file.
      suffix: distinguishes files made in the same second.
    """

    def __init__(self, folder: str | os.PathLike[str], suffix: str):
        self._folder = pathlib.Path(folder)
        self._flushed = time.monotonic()
        self._writer: EventsWriter | None = self._try(
            lambda: EventsWriter(str(self._folder / 'events'), suffix)
        )

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers, each to the curve of its name."""
        for name, value in values.items():
            # `summary.scalar` would print a line for a number that isn't finite.
            self._add(step, Summary(value=[Summary.Value(tag=name, simple_value=float(value))]))

    def add_audio(self, step: int, tag: str, waveform: np.ndarray, sample_rate: int) -> None:
        """Adds `[channels, samples]`; more than two channels are mixed to one."""
        heard = waveform if len(waveform) <= 2 else waveform.mean(axis=0, keepdims=True)
        self._add(step, summary.audio(tag, heard.T, sample_rate))

    def add_picture(self, step: int, tag: str, picture: np.ndarray) -> None:
        """Adds `[height, width, 3]`, uint8."""
        self._add(step, summary.image(tag, picture, dataformats='HWC'))

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _add(self, step: int, added: Summary) -> None:
        if self._writer is not None:
            event = Event(step=step, wall_time=time.time(), summary=added)
            self._try(lambda: self._writer.write_event(event))
        if self._writer is not None and time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._try(self._writer.flush)

    def _try(self, write: Callable[[], object]) -> object:
        try:
            return write()
        except OSError as error:
            self._writer = None
            reason = error.strerror or error
            _logger.warning(
                'curves for TensorBoard end here: %s cannot be written (%s)', self._folder, reason
            )
            return None


def read_curves(workdir: str | os.PathLike[str]) -> Curves:
    """Reads each curve of a run's folder, by step; of a repeated step, the later value counts."""
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for path in pathlib.Path(workdir).glob('*.tfevents.*'):
        events = EventAccumulator(str(path), _ALL_SCALARS)
        events.Reload()
        for name in events.Tags()['scalars']:
            curve = points.setdefault(name, {})
            for event in events.Scalars(name):
                point = event.wall_time, event.value
                curve[event.step] = max(curve.get(event.step, point), point)
    return {
        name: {step: value for step, (_, value) in sorted(curve.items())}
        for name, curve in sorted(points.items())
    }
