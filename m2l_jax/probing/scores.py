"""Scores of predictions, in NumPy and float64."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from m2l_jax.evaluation import statistics
from m2l_jax.probing.labels import KEYS

_ROUNDS, _ROUNDS_AT_ONCE = 1000, 100  # of the bootstrap of figures that are no means over clips
_FIFTH, _RELATIVE, _PARALLEL = 0.5, 0.3, 0.2


def roc_auc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Area under the receiver's curve: how often a positive clip outscores a negative; ties half.

    Args:
      targets: `[N]`, True for positive clips.
      scores: `[N]`.

    Returns:
      In [0, 1]; nan without positive or without negative clips.
    """
    return float(_area(*_by_score(targets, scores, np.ones((1, len(scores)))))[0])


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Precision at each threshold, weighted by the growth of recall; arguments as in `roc_auc`.

    Clips of one score pass a threshold together. nan without positive or without negative clips:
    where all are positive, any order has 1.
    """
    return float(_precision(*_by_score(targets, scores, np.ones((1, len(scores)))))[0])


def accuracy(targets: np.ndarray, scores: np.ndarray, classes: Sequence[str] = ()) -> np.ndarray:
    """1 for each clip whose own class has the highest score, 0 for others; as `mirex`."""
    return (np.argmax(scores, axis=1) == targets).astype(np.float64)


def mirex(targets: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """MIREX's weight of each clip's error of key, `[N]`, as `mir_eval.key.weighted_score` has it.

    1 for the key itself, 0.5 for the key a fifth above it, 0.3 for the relative one, 0.2 for the
    parallel one, 0 for others.

    Args:
      targets: `[N]`, the number of each clip's class.
      scores: `[N, classes]`; the highest decides.
      classes: their names, of `KEYS`.
    """
    keys = np.array([KEYS.index(name) for name in classes])
    tonic, mode = np.divmod(keys[targets], 2)  # mode 0 is major
    estimate, estimated_mode = np.divmod(keys[np.argmax(scores, axis=1)], 2)
    above, same = (estimate - tonic) % 12, mode == estimated_mode
    cases = [
        same & (above == 0),
        same & (above == 7),
        ~same & (above == np.where(mode == 0, 9, 3)),
        ~same & (above == 0),
    ]
    return np.select(cases, [1.0, _FIFTH, _RELATIVE, _PARALLEL], 0.0)


@dataclasses.dataclass(frozen=True)
class ClipScore:
    """A figure that is a mean over clips; `of_clips` gives each clip's, as `mirex` does."""

    heading: str
    of_clips: Callable[[np.ndarray, np.ndarray, Sequence[str]], np.ndarray]

    def measure(
        self, targets: np.ndarray, scores: np.ndarray, classes: Sequence[str]
    ) -> tuple[list[float], tuple[float, float]]:
        """The figure of each seed, and the interval of 95 % of their mean: bootstrap over clips.

        The probes stay the same: the interval has no part of their seeds.

        Args:
          targets: `[N]`, numbers of classes.
          scores: `[seeds, N, classes]`.
          classes: their names.
        """
        values = np.stack([self.of_clips(targets, each, classes) for each in scores])
        figures = [float(each) for each in np.mean(values, axis=1)]
        return figures, statistics.interval(np.mean(values, axis=0))


@dataclasses.dataclass(frozen=True)
class TagScore:
    """A figure that is a mean over tags; `of_tag` gives one of counts by falling score.

    `of_tag` takes the positive and the negative clips of each score, `[rounds, scores]` both, and
    returns `[rounds]`, nan where it is not defined.
    """

    heading: str
    of_tag: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def measure(
        self, targets: np.ndarray, scores: np.ndarray, classes: Sequence[str]
    ) -> tuple[list[float], tuple[float, float]]:
        """As `ClipScore.measure`, for targets `[N, tags]` of booleans; 1,000 resamples.

        Tags without a defined figure do not count, in a resample either.
        """
        clips = len(targets)
        figures = [float(each) for each in self._over_tags(targets, scores, np.ones((1, clips)))]
        if clips < 2:
            return figures, (float('nan'), float('nan'))
        random, means = np.random.default_rng(0), []
        for _ in range(_ROUNDS // _ROUNDS_AT_ONCE):
            chosen = random.multinomial(clips, np.full(clips, 1 / clips), size=_ROUNDS_AT_ONCE)
            drawn = self._over_tags(targets, scores, chosen.astype(np.float64))
            means.append(np.mean(drawn.reshape(len(scores), -1), axis=0))
        low, high = np.nanpercentile(np.concatenate(means), [2.5, 97.5])
        return figures, (float(low), float(high))

    def _over_tags(
        self, targets: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """The mean over tags of each seed and round, `[seeds · rounds]`."""
        figures = []
        for each in scores:
            tags = zip(targets.T, each.T, strict=True)
            by_tag = np.stack([self.of_tag(*_by_score(*tag, weights)) for tag in tags])
            defined = np.isfinite(by_tag)
            total = np.sum(np.where(defined, by_tag, 0), axis=0)
            counted = np.sum(defined, axis=0)
            figures.append(np.where(counted, total / np.maximum(counted, 1), np.nan))
        return np.concatenate(figures)


def _by_score(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positive and negative clips of each score, falling: `[rounds, scores]` both."""
    order = np.argsort(-np.asarray(scores), kind='stable')
    sorted_scores = np.asarray(scores)[order]
    begins = np.flatnonzero(np.append(True, sorted_scores[1:] != sorted_scores[:-1]))
    positive = np.asarray(targets, np.float64)[order]
    weights = weights[:, order]
    return (
        np.add.reduceat(weights * positive, begins, axis=1),
        np.add.reduceat(weights * (1 - positive), begins, axis=1),
    )


def _area(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """`roc_auc` of each round: the share of pairs that are in order (Mann and Whitney 1947)."""
    above = np.cumsum(positive, axis=1) - positive / 2
    pairs = np.sum(positive, axis=1) * np.sum(negative, axis=1)
    in_order = np.sum(negative * above, axis=1)
    return np.where(pairs, in_order / np.where(pairs, pairs, 1), np.nan)


def _precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """`average_precision` of each round."""
    hits, taken = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    weighted = np.sum(positive * hits / np.maximum(taken, 1), axis=1)
    is_defined = (hits[:, -1] > 0) & (hits[:, -1] < taken[:, -1])
    return np.where(is_defined, weighted / np.where(is_defined, hits[:, -1], 1), np.nan)


ACCURACY = ClipScore('accuracy', accuracy)
MIREX = ClipScore('weighted score (MIREX)', mirex)
ROC_AUC = TagScore('ROC-AUC, mean over tags', _area)
AVERAGE_PRECISION = TagScore('average precision, mean over tags', _precision)


def scores_of(task: str) -> dict[str, ClipScore | TagScore]:
    """The scores of a task by their names in reports; the first is the main one."""
    if task == 'tagging':
        return {'roc_auc': ROC_AUC, 'average_precision': AVERAGE_PRECISION}
    return {'mirex': MIREX, 'accuracy': ACCURACY} if task == 'key' else {'accuracy': ACCURACY}
