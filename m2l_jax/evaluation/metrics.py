"""Metrics of a reconstruction against its original, in NumPy and float64.

They read signals block by block, so that memory does not grow with their length.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from m2l_jax.interface.errors import InputError

LEAST_SAMPLES = _WINDOW = 2048
HOP = 512
_BLOCK_VALUES = 1 << 20  # of a signal, or of its frames, at a time: 8 MB in float64
_POWER_FLOOR = 1e-10  # -100 dB: digital silence counts as this, not as minus infinity

# (FFT, hop, window) and floor of the multi-resolution distance: Yamamoto et al. 2020, table 1, and
# its authors' code.
_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_STFT_POWER_FLOOR = 1e-7

# Of the mel distance: Kumar et al. 2023, section 3.5, and its authors' code. The mel scale of
# Slaney's Auditory Toolbox is linear below its knee and logarithmic above.
_MEL_BANDS = 80
_MEL_FLOOR = 1e-5
_MEL_KNEE_HZ, _HZ_PER_MEL, _MELS_PER_NEPER = 1000, 200 / 3, 27 / math.log(6.4)


# Of the baseline noise.
_NOISE_SEED = 0
_NOISE_ROUNDS = 10


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as it is named and printed.

    Attributes:
      function: of original and estimate, `[channels, samples]`, and the sample rate in Hz.
      label: the metric's name in text.
      unit: of its figures.
      digits: after the decimal point.
      higher_is_better: False for a distance.
    """

    function: Callable[[np.ndarray, np.ndarray, int], float]
    label: str
    unit: str = ''
    digits: int = 3
    higher_is_better: bool = False

    @property
    def heading(self) -> str:
        """The label with unit and direction, e.g. `SI-SDR, dB (higher)`."""
        unit = f', {self.unit}' if self.unit else ''
        return f'{self.label}{unit} ({"higher" if self.higher_is_better else "lower"})'

    def format(self, figure: float) -> str:
        """A figure with its name and unit, e.g. `mel distance 0.123`."""
        return f'{self.label} {figure:.{self.digits}f} {self.unit}'.rstrip()


def measure(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Every metric of `METRICS` for a pair of signals, `[channels, samples]`."""
    return {
        name: metric.function(original, estimate, sample_rate) for name, metric in METRICS.items()
    }


def describe(figures: Mapping[str, float]) -> str:
    """The metrics among `figures`, for a line of text."""
    return ', '.join(
        metric.format(figures[name]) for name, metric in METRICS.items() if name in figures
    )


def mean_figures(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over clips."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def si_sdr(original: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), higher is better.

    Args:
      original, estimate: `[channels, samples]`, the same shape.

    Returns:
      The mean over the channels in which the original has sound; -inf where the estimate is silent
      in one of them, nan if the original is silent in all.
    """
    _check_pair(original, estimate)
    means = sum(np.sum(pair, axis=-1) for pair in _blocks(original, estimate)) / original.shape[-1]

    def total(values: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]) -> np.ndarray:
        """Sums over all samples, `[values, channels]`, of a function of the centred signals."""
        centred = (pair - means[..., None] for pair in _blocks(original, estimate))
        return sum(np.sum(np.stack(values(*pair)), axis=-1) for pair in centred)

    energy, product = total(lambda x, y: (x * x, x * y))
    sounding = energy > 0
    if not np.any(sounding):
        return float('nan')
    scale = np.divide(product, energy, where=sounding, out=np.zeros_like(energy))[:, None]
    signal, distortion = total(lambda x, y: ((scale * x) ** 2, (y - scale * x) ** 2))[:, sounding]
    with np.errstate(divide='ignore', invalid='ignore'):
        # A silent estimate is all distortion, also where both sums are 0.
        ratios = np.where(signal > 0, 10 * np.log10(signal) - 10 * np.log10(distortion), -np.inf)
    return float(np.mean(ratios))


def log_spectral_distance(original: np.ndarray, estimate: np.ndarray) -> float:
    """Log-spectral distance in dB, lower is better.

    Root mean square over frequency of the difference of the two power spectra in dB (Hann 2048,
    hop 512, floor -100 dB), mean over time and channels.

    Args:
      original, estimate: `[..., samples]`, the same shape, at least 2048 samples.
    """
    _check_pair(original, estimate)
    total, frames = 0.0, 0
    for levels in zip(_levels(original, HOP), _levels(estimate, HOP), strict=True):
        distances = np.sqrt(np.mean(np.subtract(*levels) ** 2, axis=-1))  # [..., t]
        total += np.sum(distances)
        frames += distances.size
    return float(total / frames)


def power_spectrogram_db(waveform: np.ndarray, hop: int = HOP) -> np.ndarray:
    """Power in dB relative to a full-scale sine, floored: `[..., samples]` to `[..., T, 1025]`."""
    return np.concatenate(list(_levels(waveform, hop)), axis=-2)


def multi_resolution_stft_distance(original: np.ndarray, estimate: np.ndarray) -> float:
    """Distance of magnitude spectrograms at three resolutions, lower is better, 0 for equals.

    Yamamoto et al. 2020 (Parallel WaveGAN, arXiv 1910.11480), section 2.2 and table 1; also the
    defaults of auraloss's `MultiResolutionSTFTLoss` (Steinmetz & Reiss 2020). At each resolution,
    with S the original's magnitudes and Ŝ the estimate's,

        ‖S - Ŝ‖ / ‖S‖  +  mean |ln S - ln Ŝ|

    (spectral convergence, Frobenius norms, and log magnitude). FFTs of 1024, 2048 and 512 samples,
    Hann windows of 600, 1200 and 240 in their middle, hops of 120, 240 and 50; frames centred on
    the signal, which is mirrored at its ends. Magnitudes are not normalised and at least √1e-7, so
    that silence has a logarithm. The sizes were chosen at 24 kHz and are used at any rate.

    Args:
      original, estimate: `[..., samples]`, the same shape, at least 2048 samples.

    Returns:
      The mean over resolutions and channels.
    """
    _check_pair(original, estimate)
    distances = []
    for fft, hop, window in _RESOLUTIONS:
        padded = np.pad(_hann(window), (fft - window) // 2)
        powers = (_powers(signal, padded, hop, centred=True) for signal in (original, estimate))
        squares, logarithms, values = 0.0, 0.0, 0
        for pair in zip(*powers, strict=True):
            reference, other = (np.sqrt(np.maximum(power, _STFT_POWER_FLOOR)) for power in pair)
            parts = np.stack([reference - other, reference])  # [2, ..., t, F]
            squares = squares + np.sum(parts**2, axis=(-2, -1))  # [2, ...]
            logarithms += np.sum(np.abs(np.log(reference / other)))
            values += reference.size
        distances.append(np.mean(np.sqrt(squares[0] / squares[1])) + logarithms / values)
    return float(np.mean(distances))


def mel_distance(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Distance of log-mel spectrograms, lower is better, 0 for equals; 0.05 for a gain of 1 dB.

    The logarithmic term of the mel loss of Kumar et al. 2023 (Descript Audio Codec, arXiv
    2306.06546), section 3.5, at one of its resolutions: with M the mel spectrogram,

        mean |log10 max(M, 1e-5) - log10 max(M̂, 1e-5)|

    over bands, time and channels. M is the magnitude STFT (periodic Hann 2048, hop 512, no padding,
    not normalised) through 80 triangular filters of equal area from 0 Hz to half the sample rate,
    on Slaney's mel scale: librosa's defaults. For 16-bit audio the floor is about the noise of its
    quantisation.

    Args:
      original, estimate: `[..., samples]`, the same shape, at least 2048 samples.
      sample_rate: in Hz.
    """
    _check_pair(original, estimate)
    filters, window = mel_filters(sample_rate), _hann(_WINDOW)
    powers = (_powers(signal, window, HOP) for signal in (original, estimate))
    total, values = 0.0, 0
    for pair in zip(*powers, strict=True):
        levels = [np.log10(np.maximum(np.sqrt(power) @ filters, _MEL_FLOOR)) for power in pair]
        total += np.sum(np.abs(np.subtract(*levels)))
        values += levels[0].size
    return float(total / values)


def mel_filters(sample_rate: int) -> np.ndarray:
    """The filters of `mel_distance`, `[1025, 80]`: each begins and ends at its neighbours' tops."""
    ends = _hz_to_mel(np.array([0.0, sample_rate / 2]))
    places = _mel_to_hz(np.linspace(*ends, _MEL_BANDS + 2))
    below, tops, above = places[:-2], places[1:-1], places[2:]
    bins = np.fft.rfftfreq(_WINDOW, 1 / sample_rate)[:, None]
    triangles = np.minimum((bins - below) / (tops - below), (above - bins) / (above - tops))
    return np.maximum(triangles, 0) * 2 / (above - below)


# All metrics that are measured, printed and drawn: add new ones here.
METRICS = {
    'si_sdr': Metric(lambda x, y, _: si_sdr(x, y), 'SI-SDR', 'dB', 2, higher_is_better=True),
    'lsd': Metric(lambda x, y, _: log_spectral_distance(x, y), 'log-spectral distance', 'dB', 2),
    'mr_stft': Metric(
        lambda x, y, _: multi_resolution_stft_distance(x, y), 'multi-resolution STFT distance'
    ),
    'mel': Metric(mel_distance, 'mel distance'),
}


def shaped_noise(waveform: np.ndarray) -> np.ndarray:
    """Baseline: stationary Gaussian noise with a clip's average power at each frequency.

    It has the timbre of the whole clip and nothing that changes in time: no notes, no beats.

    Args:
      waveform: `[channels, samples]`, at least 2048 samples.

    Returns:
      The same shape, float32: other noise for each channel, of a fixed seed, filtered so that its
      `average_power_spectrum` is nearly the channel's.
    """
    samples = waveform.shape[-1]
    white = np.fft.rfft(np.random.default_rng(_NOISE_SEED).standard_normal(waveform.shape))
    wanted = average_power_spectrum(waveform)
    gains = np.ones_like(wanted)  # [channels, 1025]
    frequencies, points = (np.linspace(0, 1, each.shape[-1]) for each in (white, gains))
    # The window blurs peaks, and the mean is over a few seconds: correct the gains by the average
    # spectrum that the filtered noise has.
    for _ in range(_NOISE_ROUNDS):
        filters = np.stack([np.interp(frequencies, points, channel) for channel in gains])
        noise = np.fft.irfft(white * filters, samples)
        power = average_power_spectrum(noise)
        gains *= np.sqrt(np.divide(wanted, power, out=np.zeros_like(power), where=power > 0))
    return noise.astype(np.float32)


def average_power_spectrum(waveform: np.ndarray) -> np.ndarray:
    """Mean over time of |STFT|² (Hann 2048, hop 512): `[..., samples]` to `[..., 1025]`."""
    total, frames = 0.0, 0
    for power in _powers(waveform, _hann(_WINDOW), HOP):
        total = total + np.sum(power, axis=-2)
        frames += power.shape[-2]
    return total / frames


def _hz_to_mel(hertz: np.ndarray) -> np.ndarray:
    nepers = np.log(np.maximum(hertz, _MEL_KNEE_HZ) / _MEL_KNEE_HZ)
    return np.minimum(hertz, _MEL_KNEE_HZ) / _HZ_PER_MEL + nepers * _MELS_PER_NEPER


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    knee = _MEL_KNEE_HZ / _HZ_PER_MEL
    return np.minimum(mel, knee) * _HZ_PER_MEL * np.exp(np.maximum(mel - knee, 0) / _MELS_PER_NEPER)


def _blocks(original: np.ndarray, estimate: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks `[2, channels, n]` of two signals, float64."""
    step = max(1, _BLOCK_VALUES // len(original))
    for begin in range(0, original.shape[-1], step):
        pair = (signal[:, begin : begin + step] for signal in (original, estimate))
        yield np.stack([part.astype(np.float64) for part in pair])


def _levels(waveform: np.ndarray, hop: int) -> Iterator[np.ndarray]:
    """Blocks `[..., t, 1025]` of a power spectrogram in dB, see `power_spectrogram_db`."""
    window = _hann(_WINDOW)
    full_scale = (window.sum() / 2) ** 2
    for power in _powers(waveform, window, hop):
        yield 10 * np.log10(np.maximum(power / full_scale, _POWER_FLOOR))


def _powers(
    waveform: np.ndarray, window: np.ndarray, hop: int, centred: bool = False
) -> Iterator[np.ndarray]:
    """Blocks `[..., t, len(window) // 2 + 1]` of |STFT|², over the frames of `[..., samples]`.

    Args:
      waveform: the signal.
      window: of a frame.
      hop: samples from a frame to the next.
      centred: has frames centred on samples 0, hop, …, of the signal mirrored at its ends.
    """
    samples, size = waveform.shape[-1], len(window)
    reach = size // 2 if centred else 0
    frames = 1 + (samples + 2 * reach - size) // hop
    step = max(1, _BLOCK_VALUES // (size * math.prod(waveform.shape[:-1])))
    for first in range(0, frames, step):
        count = min(step, frames - first)
        places = np.arange(size + hop * (count - 1)) + first * hop - reach
        mirrored = samples - 1 - np.abs(samples - 1 - np.abs(places))
        block = waveform[..., mirrored].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(block, size, axis=-1)[..., ::hop, :]
        yield np.abs(np.fft.rfft(windows * window)) ** 2


def _hann(samples: int) -> np.ndarray:
    """The periodic Hann window."""
    return np.hanning(samples + 1)[:-1]


def _check_pair(original: np.ndarray, estimate: np.ndarray) -> None:
    if original.shape != estimate.shape or original.shape[-1] < _WINDOW:
        raise InputError(
            f'signals of shapes {original.shape} and {estimate.shape} cannot be compared: '
            f'they must be the same, with at least {_WINDOW} samples'
        )
