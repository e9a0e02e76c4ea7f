"""Distances between the embeddings of original clips and those of their reconstructions.

Both are lists with `[frames, width]` of each clip. Subsets and intervals are over clips: a clip's
frames depend on each other, and on those of its reconstruction.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LEAST_CLIPS = 8  # for an interval or an extrapolation

_SIZES, _DRAWS = 6, 4  # subsets of the extrapolation
_GROUPS = 30  # of the jackknife
_NORMAL_95 = 1.96
_KERNEL_SCALE = 100  # of the authors' kadtk
_KERNEL_FRAMES = 3000  # over all clips, for the kernel distance

Embeddings = Sequence[np.ndarray]


def measure_distances(reference: Embeddings, estimate: Embeddings) -> dict[str, Any]:
    """Measures all distances.

    Args:
      reference: `[frames, width]` of each clip.
      estimate: those of the clips' reconstructions, in the same shapes.

    Returns:
      `fad`, the Fréchet audio distance; `fad_inf`, the same extrapolated to infinitely many clips;
      `kad`, the kernel audio distance, which needs fewer; `interval`, that of 95 % of `fad` and
      `kad`; `embeddings`, their number; and `width`. nan where clips are too few: 2 for `kad`,
      `LEAST_CLIPS` for `fad_inf` and the intervals.
    """
    if [each.shape for each in reference] != [each.shape for each in estimate]:
        raise ValueError('reference and estimate are not embeddings of the same clips')
    fad, kad = _make_frechet(reference, estimate), _make_kernel(reference, estimate)
    clips = len(reference)
    whole = {'fad': fad(np.arange(clips)), 'kad': kad(np.arange(clips))}
    return {
        'fad': whole['fad'],
        'fad_inf': _extrapolate(fad, clips),
        'kad': whole['kad'],
        'interval': {
            'fad': _jackknife(fad, clips, whole['fad']),
            'kad': _jackknife(kad, clips, whole['kad']),
        },
        'embeddings': sum(map(len, reference)),
        'width': reference[0].shape[1],
    }


def frechet_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Fréchet distance of Gaussians fitted to `[N, width]` and `[M, width]`; nan for one row.

    |m₁ - m₂|² + tr S₁ + tr S₂ - 2 tr (S₁^½ S₂ S₁^½)^½ (Dowson & Landau 1982). With Sᵢ = RᵢᵀRᵢ, the
    last trace is the sum of the singular values of R₁R₂ᵀ, which is stable where S₁S₂ is singular.
    """
    if min(len(reference), len(estimate)) < 2:
        return float('nan')
    first, second = (np.asarray(rows, np.float64) for rows in (reference, estimate))
    shift = np.mean(first, axis=0) - np.mean(second, axis=0)
    roots = _covariance_root(first), _covariance_root(second)
    common = np.sum(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False))
    spread = sum(np.sum(root**2) for root in roots)
    return float(max(shift @ shift + spread - 2 * common, 0))


def _covariance_root(rows: np.ndarray) -> np.ndarray:
    """R of the covariance RᵀR of `[N, width]`: the centred rows, or `[width, width]` if smaller."""
    centred = (rows - np.mean(rows, axis=0)) / np.sqrt(len(rows) - 1)
    if len(rows) <= rows.shape[1]:
        return centred
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # zeros may come out negative


def _make_frechet(reference: Embeddings, estimate: Embeddings) -> Callable[[np.ndarray], float]:
    """The Fréchet distance as a function of the clips' numbers."""

    def measure(chosen: np.ndarray) -> float:
        rows = (np.concatenate([each[clip] for clip in chosen]) for each in (reference, estimate))
        return frechet_distance(*rows)

    return measure


def _make_kernel(reference: Embeddings, estimate: Embeddings) -> Callable[[np.ndarray], float]:
    """The kernel audio distance (Chung et al. 2025) as a function of the clips' numbers.

    100 times the unbiased estimate of the squared maximum mean discrepancy, for a Gaussian kernel
    whose bandwidth is the median distance between embeddings of the reference. It is the paired
    estimate (Gretton et al. 2012, equation 4), over pairs of different clips: with a clip and its
    own reconstruction among the pairs, a perfect codec would be below zero. May be negative. Of
    more than 3,000 embeddings it takes evenly spaced ones of each clip.
    """
    each = max(_KERNEL_FRAMES // len(reference), 1)
    places = [np.unique(np.linspace(0, len(rows) - 1, each).round()) for rows in reference]
    places = [place.astype(int) for place in places]
    counts = np.array(list(map(len, places)), np.float64)
    starts = np.cumsum(counts).astype(int) - counts.astype(int)
    sets = [
        np.concatenate([rows[place] for rows, place in zip(rows_of_clips, places, strict=True)])
        for rows_of_clips in (reference, estimate)
    ]
    centre = np.mean(sets[0], axis=0, dtype=np.float64)  # for the differences' precision
    originals, others = (rows - centre for rows in sets)
    bandwidth = _median_distance(originals)

    def sums(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The kernel's sums over the pairs of clips, `[clips, clips]`; a clip at a time."""
        blocks = np.split(left, starts[1:])
        kernels = (np.exp(_squares(block, right) / (-2 * bandwidth**2)) for block in blocks)
        return np.stack([np.add.reduceat(np.sum(kernel, axis=0), starts) for kernel in kernels])

    if bandwidth:
        crossed = sums(originals, others)
        pairs = sums(originals, originals) + sums(others, others) - crossed - crossed.T
        np.fill_diagonal(pairs, 0)

    def measure(chosen: np.ndarray) -> float:
        weight = np.sum(counts[chosen]) ** 2 - np.sum(counts[chosen] ** 2)
        if not bandwidth or not weight:
            return float('nan')
        return float(_KERNEL_SCALE * np.sum(pairs[np.ix_(chosen, chosen)]) / weight)

    return measure


def _median_distance(rows: np.ndarray) -> float:
    """Median of the distances between different rows of `[N, width]`; 0 for one row."""
    rows = rows[:: -(-len(rows) // _KERNEL_FRAMES)]
    above = np.triu_indices(len(rows), 1)
    return float(np.sqrt(np.median(_squares(rows, rows)[above]))) if len(rows) > 1 else 0.0


def _squares(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distances between rows, `[N, width]` and `[M, width]` to `[N, M]`."""
    lengths = np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)
    return np.maximum(lengths - 2 * left @ right.T, 0)


def _extrapolate(measure: Callable[[np.ndarray], float], clips: int, seed: int = 0) -> float:
    """A Fréchet distance of infinitely many clips (Chong & Forsyth 2020, Gui et al. 2024).

    One of n clips is too large by about a multiple of 1/n; the intercept of a line fitted to random
    subsets, from half of the clips to all, is free of it. A subset holds the same clips of both:
    with all originals against some reconstructions, as for generated music, the line would end far
    below zero.
    """
    if clips < LEAST_CLIPS:
        return float('nan')
    random = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(clips // 2, clips, _SIZES).round().astype(int)).repeat(_DRAWS)
    values = [measure(random.permutation(clips)[:size]) for size in sizes]
    return float(np.polyfit(1 / sizes, values, 1)[1])


def _jackknife(
    measure: Callable[[np.ndarray], float], clips: int, whole: float
) -> tuple[float, float]:
    """An interval of 95 % over clips; each of at most 30 equal groups is left out in turn.

    A bootstrap repeats clips, and the fewer different ones raise a Fréchet distance.
    """
    if clips < LEAST_CLIPS:
        return float('nan'), float('nan')
    numbers, groups = np.arange(clips), min(clips, _GROUPS)
    size = clips // groups  # the same of each: a Fréchet distance depends on the number of clips
    left_out = numbers[: size * groups].reshape(size, groups).T
    values = [measure(np.setdiff1d(numbers, group)) for group in left_out]
    error = np.sqrt((clips - size) / size * np.var(values))
    return float(whole - _NORMAL_95 * error), float(whole + _NORMAL_95 * error)
