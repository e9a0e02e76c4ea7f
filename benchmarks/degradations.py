"""Degradations of clips, for `ruler`: coding, quantisation, filtering, lost phases, noise."""

import dataclasses
import functools
import io
import types
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.signal
import soundfile

from m2l_jax.audio.files import resample
from m2l_jax.evaluation.baselines import shaped_noise
from m2l_jax.evaluation.embeddings.choice import Embedding, open_embeddings
from m2l_jax.evaluation.listening.stimuli import apply_filter, low_pass
from m2l_jax.evaluation.metrics import measure_named
from m2l_jax.interface.errors import InputError

_LARGEST_DELAY = 4608  # samples: four frames of MP3
_OPUS_RATE = 48_000

_LOW_PASS = (4000, 4450)  # Hz: passed up to the first, stopped from the second
_WINDOW, _HOP = 2048, 512
_PHASE_ROUNDS = 16


@dataclasses.dataclass(frozen=True)
class Degraded:
    """A degraded clip.

    Attributes:
      waveform: `[channels, samples]`, the shape of the clip, float32.
      kilobits: a second, of the coded file; 0 without one.
      delay: samples by which the decoded file was late, which `waveform` is not.
    """

    waveform: np.ndarray
    kilobits: float = 0.0
    delay: int = 0


@dataclasses.dataclass(frozen=True)
class Examined:
    """Figures of a degraded clip, by metric; its `kilobits` and `delay`; its embeddings by name."""

    figures: dict[str, float]
    kilobits: float
    delay: int
    embeddings: dict[str, np.ndarray]


def examine(
    waveform: np.ndarray,
    sample_rate: int,
    degradation: str,
    metrics: Sequence[str],
    embeddings: Sequence[str],
) -> Examined:
    """Degrades a clip, measures and embeds it; a call for a process of its own."""
    degraded = DEGRADATIONS[degradation](waveform, sample_rate)
    return Examined(
        measure_named(waveform, degraded.waveform, sample_rate, metrics),
        degraded.kilobits,
        degraded.delay,
        {each.name: each.embed(degraded.waveform, sample_rate) for each in _opened(*embeddings)},
    )


def mp3(waveform: np.ndarray, sample_rate: int, kilobits: int) -> Degraded:
    """Codes by libsndfile's MP3 at a constant rate of 32 to 320 kbit/s, for all channels."""
    # libsndfile maps levels from 0 to 1 to rates from 320 down to 32, and fails at 1.
    level = min((320 - kilobits) / 288, 0.99)
    options = {'format': 'MP3', 'compression_level': level, 'bitrate_mode': 'CONSTANT'}
    return _code(waveform, sample_rate, options)


def opus(waveform: np.ndarray, sample_rate: int, kilobits: int) -> Degraded:
    """Codes by libsndfile's Opus at a mean rate of 6 to 256 kbit/s a channel, for all channels."""
    # libsndfile maps levels from 0 to 1 to rates from 256 down to 6 of each channel.
    level = (256 - kilobits / len(waveform)) / 250
    options = {'format': 'OGG', 'subtype': 'OPUS', 'compression_level': level}
    coded = _code(resample(waveform, sample_rate, _OPUS_RATE), _OPUS_RATE, options)
    back = resample(coded.waveform, _OPUS_RATE, sample_rate)
    return dataclasses.replace(coded, waveform=_fit(back, waveform.shape[1]))


def quantise(waveform: np.ndarray, bits: int) -> np.ndarray:
    """Rounds to a number of bits, without dither."""
    steps = 1 << (bits - 1)
    return (np.clip(np.round(waveform * steps), -steps, steps - 1) / steps).astype(np.float32)


def lower_pass(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Removes what is above 4 kHz, without delay."""
    return apply_filter(waveform, low_pass(*_LOW_PASS, sample_rate))


def randomise_phases(waveform: np.ndarray) -> np.ndarray:
    """Replaces the phases of the STFT (Hann 2048, hop 512) by others, of a fixed seed.

    Random ones first, which no signal has; 16 rounds of Griffin & Lim's algorithm (1984) bring the
    magnitudes back to those of the original, nearly.
    """
    options = {'nperseg': _WINDOW, 'noverlap': _WINDOW - _HOP}
    magnitudes = np.abs(scipy.signal.stft(waveform, **options)[2])
    phases = np.random.default_rng(0).uniform(-np.pi, np.pi, magnitudes.shape)
    units = np.exp(1j * phases)
    for _ in range(_PHASE_ROUNDS):
        signal = scipy.signal.istft(magnitudes * units, **options)[1]
        spectra = scipy.signal.stft(_fit(signal, waveform.shape[1]), **options)[2]
        units = np.exp(1j * np.angle(spectra))
    signal = scipy.signal.istft(magnitudes * units, **options)[1]
    return _fit(signal, waveform.shape[1]).astype(np.float32)


def align(original: np.ndarray, decoded: np.ndarray) -> tuple[np.ndarray, int]:
    """Removes a codec's delay, that of the largest cross-correlation summed over channels.

    Args:
      original, decoded: `[channels, samples]`; the lengths may differ.

    Returns:
      `decoded`, shifted by whole samples and as long as `original`; and the delay, of up to 4608
      samples, negative if it was early.
    """
    size = original.shape[1] + decoded.shape[1]
    spectra = (np.fft.rfft(signal, size) for signal in (original, decoded))
    first, second = spectra
    products = np.sum(np.fft.irfft(np.conj(first) * second, size), axis=0)
    delays = np.arange(-_LARGEST_DELAY, _LARGEST_DELAY + 1)
    delay = int(delays[np.argmax(products[delays])])
    shifted = decoded[:, delay:] if delay > 0 else np.pad(decoded, ((0, 0), (-delay, 0)))
    return _fit(shifted, original.shape[1]), delay


DEGRADATIONS: Mapping[str, Callable[[np.ndarray, int], Degraded]] = types.MappingProxyType(
    {
        'original': lambda x, rate: Degraded(x),
        'MP3 128': lambda x, rate: mp3(x, rate, 128),
        'MP3 32': lambda x, rate: mp3(x, rate, 32),
        'Opus 24': lambda x, rate: opus(x, rate, 24),
        'Opus 12': lambda x, rate: opus(x, rate, 12),
        '8 bits': lambda x, rate: Degraded(quantise(x, 8)),
        'below 4 kHz': lambda x, rate: Degraded(lower_pass(x, rate)),
        'other phases': lambda x, rate: Degraded(randomise_phases(x)),
        'shaped noise': lambda x, rate: Degraded(shaped_noise(x)),
    }
)
"""Functions of `[channels, samples]` and the sample rate in Hz, by the names in the table."""


@functools.cache
def _opened(*names: str) -> list[Embedding]:
    return open_embeddings(names, None)


def _code(waveform: np.ndarray, sample_rate: int, options: Mapping[str, object]) -> Degraded:
    file = io.BytesIO()
    try:
        soundfile.write(file, waveform.T, sample_rate, **options)
        kilobits = 8 * len(file.getvalue()) * sample_rate / waveform.shape[1] / 1000
        file.seek(0)
        decoded, rate = soundfile.read(file, dtype='float32', always_2d=True)
    except (TypeError, ValueError, soundfile.LibsndfileError) as error:
        kind = options.get('subtype', options['format'])
        raise InputError(
            f'soundfile cannot write {kind} at {sample_rate} Hz ({error}): '
            "pip install 'soundfile>=0.13', which brings its own libsndfile, and take 44.1 kHz"
        ) from None
    if rate != sample_rate:
        raise InputError(f'libsndfile changed {sample_rate} Hz to {rate} Hz')
    aligned, delay = align(waveform, decoded.T)
    return Degraded(aligned, kilobits, delay)


def _fit(signal: np.ndarray, samples: int) -> np.ndarray:
    """Cut or filled with zeros at its end."""
    return np.pad(signal[:, :samples], ((0, 0), (0, max(0, samples - signal.shape[1]))))
