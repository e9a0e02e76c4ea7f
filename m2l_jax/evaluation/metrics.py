"""Metrics of a reconstruction against its original, in NumPy and float64.

They read signals block by block, so that memory does not grow with their length.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from m2l_jax.evaluation import spectra
from m2l_jax.evaluation.loudness import loudness_bias
from m2l_jax.evaluation.perception import notes, visqol
from m2l_jax.evaluation.perception.packages import Package, describe_missing
from m2l_jax.evaluation.spectra import (
    HOP,
    WINDOW,
    check_pair,
    hann,
    level_blocks,
    mel_filters,
    power_blocks,
)
from m2l_jax.evaluation.stereo_image import coherence_bias, level_difference_error

LEAST_SAMPLES = WINDOW
MISSING = '–'  # in tables, in place of a figure

# (FFT, hop, window) and floor of the multi-resolution distance: Yamamoto et al. 2020, table 1, and
# its authors' code.
_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_STFT_POWER_FLOOR = 1e-7

_MEL_FLOOR = 1e-5  # Kumar et al. 2023, section 3.5, and its authors' code


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as it is named and printed.

    Attributes:
      function: of original and estimate, `[channels, samples]`, and the sample rate in Hz.
      label: the metric's name in text.
      unit: of its figures.
      digits: after the decimal point.
      higher_is_better: False for a distance.
      signed: True for a bias, whose best figure is 0.
      stereo: True for a figure of two channels alone; nan of others.
      needs: packages that an installation may lack.
    """

    function: Callable[[np.ndarray, np.ndarray, int], float]
    label: str
    unit: str = ''
    digits: int = 3
    higher_is_better: bool = False
    signed: bool = False
    stereo: bool = False
    needs: tuple[Package, ...] = ()

    @property
    def heading(self) -> str:
        """The label with unit and direction, e.g. `SI-SDR, dB (higher)`."""
        unit = f', {self.unit}' if self.unit else ''
        best = '0 is best' if self.signed else 'higher' if self.higher_is_better else 'lower'
        return f'{self.label}{unit} ({best})'

    def format(self, figure: float) -> str:
        """A figure with its name and unit, e.g. `mel distance 0.123`."""
        return f'{self.label} {figure:.{self.digits}f} {self.unit}'.rstrip()


def measure(
    original: np.ndarray,
    estimate: np.ndarray,
    sample_rate: int,
    chosen: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """The chosen metrics, by default `METRICS`, of a pair of signals, `[channels, samples]`."""
    return {
        name: metric.function(original, estimate, sample_rate)
        for name, metric in (METRICS if chosen is None else chosen).items()
    }


def measure_named(
    original: np.ndarray, estimate: np.ndarray, sample_rate: int, names: Sequence[str]
) -> dict[str, float]:
    """Those of `ALL_METRICS` with these names, as `measure`."""
    return measure(original, estimate, sample_rate, {name: ALL_METRICS[name] for name in names})


def find_available(chosen: Mapping[str, Metric]) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics that can be computed, and for each other one a line with the reason."""
    reasons = {name: describe_missing(metric.needs) for name, metric in chosen.items()}
    available = {name: metric for name, metric in chosen.items() if not reasons[name]}
    left_out = {
        name: f'{chosen[name].label} is left out: {reason}'
        for name, reason in reasons.items()
        if reason
    }
    return available, left_out


def describe(figures: Mapping[str, float]) -> str:
    """The metrics among `figures`, for a line of text."""
    return ', '.join(
        metric.format(figures[name]) for name, metric in ALL_METRICS.items() if name in figures
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
    check_pair(original, estimate)
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


def snr(original: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-noise ratio ‖x‖² / ‖x̂ - x‖² in dB, higher is better; inf for equals.

    Args:
      original, estimate: `[channels, samples]`, the same shape.

    Returns:
      The mean over the channels in which the original has sound; nan if it is silent in all.
    """
    check_pair(original, estimate)
    signal, noise = sum(
        np.stack([np.sum(x * x, axis=-1), np.sum((y - x) ** 2, axis=-1)])
        for x, y in _blocks(original, estimate)
    )
    sounding = signal > 0
    if not np.any(sounding):
        return float('nan')
    with np.errstate(divide='ignore'):
        return float(np.mean(10 * np.log10(signal[sounding] / noise[sounding])))


def spectral_centroid_bias(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Centroid of the estimate's average spectrum above the original's in Hz; below 0 if duller.

    The centroid is Σ f·a(f) / Σ a(f) of the amplitudes a, the root of the mean power over time
    (Hann 2048, hop 512).

    Args:
      original, estimate: `[channels, samples]`, the same shape, at least 2048 samples.
      sample_rate: in Hz.

    Returns:
      The mean over the channels in which both have sound; nan if there is none.
    """
    check_pair(original, estimate)
    pair = np.stack([original, estimate])
    amplitudes = np.sqrt(spectra.average_power_spectrum(pair))  # [2, channels, F]
    amplitudes = amplitudes[:, np.all(np.any(amplitudes > 0, axis=-1), axis=0)]
    if not amplitudes.size:
        return float('nan')
    frequencies = np.fft.rfftfreq(WINDOW, 1 / sample_rate)
    centroids = amplitudes @ frequencies / np.sum(amplitudes, axis=-1)
    return float(np.mean(centroids[1] - centroids[0]))


def log_spectral_distance(original: np.ndarray, estimate: np.ndarray) -> float:
    """Log-spectral distance in dB, lower is better.

    Root mean square over frequency of the difference of the two power spectra in dB (Hann 2048,
    hop 512, floor -100 dB), mean over time and channels.

    Args:
      original, estimate: `[..., samples]`, the same shape, at least 2048 samples.
    """
    check_pair(original, estimate)
    total, frames = 0.0, 0
    for levels in zip(level_blocks(original, HOP), level_blocks(estimate, HOP), strict=True):
        distances = np.sqrt(np.mean(np.subtract(*levels) ** 2, axis=-1))  # [..., t]
        total += np.sum(distances)
        frames += distances.size
    return float(total / frames)


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
    check_pair(original, estimate)
    distances = []
    for fft, hop, window in _RESOLUTIONS:
        padded = np.pad(hann(window), (fft - window) // 2)
        powers = (
            power_blocks(signal, padded, hop, centred=True) for signal in (original, estimate)
        )
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
    check_pair(original, estimate)
    filters, window = mel_filters(sample_rate), hann(WINDOW)
    powers = (power_blocks(signal, window, HOP) for signal in (original, estimate))
    total, values = 0.0, 0
    for pair in zip(*powers, strict=True):
        levels = [np.log10(np.maximum(np.sqrt(power) @ filters, _MEL_FLOOR)) for power in pair]
        total += np.sum(np.abs(np.subtract(*levels)))
        values += levels[0].size
    return float(total / values)


# Measured while a model trains, drawn and printed: add quick ones here.
METRICS = {
    'si_sdr': Metric(lambda x, y, _: si_sdr(x, y), 'SI-SDR', 'dB', 2, higher_is_better=True),
    'lsd': Metric(lambda x, y, _: log_spectral_distance(x, y), 'log-spectral distance', 'dB', 2),
    'mr_stft': Metric(
        lambda x, y, _: multi_resolution_stft_distance(x, y), 'multi-resolution STFT distance'
    ),
    'mel': Metric(mel_distance, 'mel distance'),
}
# Measured by `quality.evaluate` too: add others here.
ALL_METRICS = METRICS | {
    'snr': Metric(lambda x, y, _: snr(x, y), 'SNR', 'dB', 2, higher_is_better=True),
    'centroid': Metric(spectral_centroid_bias, 'spectral-centroid bias', 'Hz', 0, signed=True),
    'loudness': Metric(loudness_bias, 'loudness bias', 'LU', 2, signed=True),
    'coherence': Metric(coherence_bias, 'inter-channel coherence bias', signed=True, stereo=True),
    'level_difference': Metric(
        level_difference_error, 'inter-channel level error', 'dB', 2, stereo=True
    ),
    'visqol': Metric(visqol.visqol, 'ViSQOL', 'MOS', 2, higher_is_better=True, needs=visqol.NEEDS),
    'notes': Metric(
        notes.note_agreement, 'note F-measure', higher_is_better=True, needs=notes.NEEDS
    ),
}


def _blocks(original: np.ndarray, estimate: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks `[2, channels, n]` of two signals, float64."""
    step = max(1, spectra.BLOCK_VALUES // len(original))
    for begin in range(0, original.shape[-1], step):
        pair = (signal[:, begin : begin + step] for signal in (original, estimate))
        yield np.stack([part.astype(np.float64) for part in pair])
