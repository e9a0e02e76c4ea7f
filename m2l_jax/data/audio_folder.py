"""Which crop of which file a training example is: a pure function of (seed, step, row).

Nothing here has state that training would have to save: any process that knows the folder and the
seed reads the same crop for the same step and row, whatever it has read before.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import threading

import numpy as np

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import list_files

_logger = logging.getLogger(__name__)

# A crop is redrawn when it is silent, damaged or not finite. So many misses in a row for a single
# row mean that hardly anything in the corpus can be used.
_MAX_ATTEMPTS = 2000
_SILENT_DRAWS_TO_REPORT = 20


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where training audio comes from and how it is cut.

    Attributes:
      path: folder of audio files (searched recursively) or a file; several with commas between.
      batch_size: crops a step, over all devices of all hosts.
      crop_frames: spectrogram frames of a crop, a multiple of the model's time downsampling.
      min_rms: crops below this root mean square are redrawn.
      representation: 'spectrogram' is computed in the pipeline, of a 'waveform' in the step.
      workers: crops read at a time.
      prefetch: batches kept ready.
    """

    path: str
    batch_size: int
    crop_frames: int
    min_rms: float
    representation: str
    workers: int
    prefetch: int

    def __post_init__(self):
        if self.representation not in ('spectrogram', 'waveform'):
            raise InputError(
                f'config.data.representation={self.representation!r} must be '
                "'spectrogram' or 'waveform'"
            )
        for name in ('batch_size', 'crop_frames', 'workers', 'prefetch'):
            if getattr(self, name) < 1:
                raise InputError(f'config.data.{name}={getattr(self, name)} must be at least 1')


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The usable files, in a fixed order, and the crops that can be cut from them.

    Attributes:
      files: headers of the usable files.
      skipped: (path, reason) of the others.
      sample_rate: rate at which crops are read, in Hz.
      crop_samples: length of a crop.
    """

    files: tuple[files.AudioInfo, ...]
    skipped: tuple[tuple[str, str], ...]
    sample_rate: int
    crop_samples: int

    @property
    def seconds(self) -> float:
        """Duration of all usable files."""
        return sum(file.samples / file.sample_rate for file in self.files)

    def describe(self) -> str:
        """One line for the log."""
        line = f'{len(self.files)} audio files, {self.seconds / 60:.1f} minutes'
        return line + (f'; {len(self.skipped)} skipped' if self.skipped else '')


def scan(path: str, sample_rate: int, crop_samples: int) -> Corpus:
    """Lists the audio files under `path` and reads their headers.

    Raises:
      InputError: if a folder is missing, or no file under `path` can be used.
    """
    paths = [
        file for part in path.split(',') for file in list_files(part.strip(), files.AUDIO_SUFFIXES)
    ]
    if not paths:
        kinds = ', '.join(sorted({'.wav', '.flac', '.ogg', '.mp3'} & files.AUDIO_SUFFIXES))
        raise InputError(f'no audio files in {path}: put some there ({kinds}, …) or mend data.path')
    with concurrent.futures.ThreadPoolExecutor() as threads:
        headers = list(threads.map(_read_header, paths))
    usable, skipped = [], []
    for file, header in zip(paths, headers, strict=True):
        if isinstance(header, str):
            skipped.append((file, header))
        elif header.samples_at(sample_rate) < crop_samples:
            reason = f'{file} is shorter than a crop ({crop_samples} samples at {sample_rate} Hz)'
            skipped.append((file, reason))
        else:
            usable.append(header)
    if not usable:
        raise InputError(
            f'none of the {len(paths)} audio files in {path} can be used: {skipped[0][1]}'
        )
    return Corpus(tuple(usable), tuple(skipped), sample_rate, crop_samples)


@dataclasses.dataclass(frozen=True)
class Crop:
    """A place in the corpus: `start` counts samples at the corpus's rate."""

    file: files.AudioInfo
    start: int
    channel: int


class CropReader:
    """Reads the crop of (step, row). Thread-safe; remembers only what it has to report.

    Files are drawn in proportion to their length, so that every second of the corpus is as likely.
    """

    def __init__(self, corpus: Corpus, seed: int, min_rms: float):
        self.corpus = corpus
        self.reported: dict[str, str] = {}  # path -> why crops of it were rejected
        self._seed = seed
        self._min_rms = min_rms
        starts = [
            file.samples_at(corpus.sample_rate) - corpus.crop_samples + 1 for file in corpus.files
        ]
        self._ends = np.cumsum(starts)
        self._silent_draws: collections.Counter[str] = collections.Counter()
        self._sounding: set[str] = set()
        self._lock = threading.Lock()

    def draw(self, step: int, row: int, attempt: int = 0) -> Crop:
        """The place that the `attempt`-th draw for a row of a step's global batch falls on."""
        # The lowest word of the counter is the generator's own; the others name the draw.
        bits = np.random.Philox(key=self._seed, counter=[0, attempt, row, step])
        random = np.random.Generator(bits)
        position = int(random.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, position, side='right'))
        before = int(self._ends[number - 1]) if number else 0
        file = self.corpus.files[number]
        return Crop(file, position - before, int(random.integers(file.channels)))

    def read(self, step: int, row: int) -> np.ndarray:
        """The crop of a row of a step's global batch, `[crop_samples]`, float32.

        Silent, damaged or non-finite crops are redrawn, as part of the same pure function.

        Raises:
          InputError: if the corpus holds hardly anything that can be used.
        """
        for attempt in range(_MAX_ATTEMPTS):
            crop = self.draw(step, row, attempt)
            try:
                channels = files.read(
                    crop.file.path, self.corpus.sample_rate, crop.start, self.corpus.crop_samples
                )
            except InputError as error:
                self._report(crop.file.path, str(error))
                continue
            if self._is_usable(crop, channels):
                return channels[crop.channel]
        raise InputError(
            f'{_MAX_ATTEMPTS} crops drawn in a row cannot be used (silent below RMS '
            f'{self._min_rms}, damaged or not finite): check data.path or lower data.min_rms'
        )

    def _is_usable(self, crop: Crop, channels: np.ndarray) -> bool:
        path = crop.file.path
        if not np.all(np.isfinite(channels)):
            self._report(path, f'{path} holds NaN or infinite samples: replace or remove it')
            return False
        is_silent = np.sqrt(np.mean(channels[crop.channel] ** 2)) < self._min_rms
        with self._lock:
            if not is_silent:
                self._sounding.add(path)  # its pauses are nothing to report
            elif path not in self._sounding:
                self._silent_draws[path] += 1
        if self._silent_draws[path] >= _SILENT_DRAWS_TO_REPORT and path not in self._sounding:
            self._report(path, f'{path} is silent (RMS below {self._min_rms}): remove it')
        return not is_silent

    def _report(self, path: str, reason: str) -> None:
        with self._lock:
            if path in self.reported:
                return
            self.reported[path] = reason
        _logger.warning('skipping %s', reason)


def _read_header(path: str) -> files.AudioInfo | str:
    """The header, or why there is none."""
    try:
        return files.read_info(path)
    except InputError as error:
        return str(error)
