"""Averages of the parameters over training, whose length is chosen after the run.

A run keeps some averages whose weights grow as powers of time, and snapshots of them. A weighted
sum of these approximates the average of any other such profile at the end of the run, as if it had
been kept (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models",
arXiv 2312.02696, section 3 and appendix C). A snapshot is `workdir/averages/STEP.safetensors`.
"""

import collections
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file
from m2l_jax.model.autoencoder import Params

LARGEST_SIGMA_REL = 12**-0.5  # of the mean over the whole run

_FOLDER = 'averages'
_UPDATES = 'updates'
_LARGEST_RESIDUAL = 0.1
_LEAST_SINGULAR_VALUE = 1e-9  # of the largest; what lies below would amplify rounding

_logger = logging.getLogger(__name__)


def exponent(sigma_rel: float) -> float:
    """γ of the profile τ^γ on [0, t] whose standard deviation is σ_rel·t.

    The largest root of σ_rel² (γ + 2)² (γ + 3) = γ + 1 (Karras et al. 2024, appendix C).

    Raises:
      ValueError: for σ_rel that isn't between 0 and 1/√12, the deviation of a constant profile.
    """
    if not 0 < sigma_rel < LARGEST_SIGMA_REL:
        raise ValueError(
            f'{sigma_rel} must be above 0 and below {LARGEST_SIGMA_REL:.4f}, the mean of all steps'
        )
    inverse = sigma_rel**-2
    return float(np.max(np.roots([1, 7, 16 - inverse, 12 - inverse]).real))


def write_snapshot(
    workdir: str | os.PathLike[str], step: int, updates: int, averages: Mapping[float, Params]
) -> None:
    """Writes the averages after a step, and that many updates, by their σ_rel, whole or not at all.

    Raises:
      InputError: if the file cannot be written.
    """
    from safetensors.numpy import save

    tensors = {
        '/'.join((repr(sigma_rel), *(key.key for key in path))): np.asarray(leaf)
        for sigma_rel, tree in averages.items()
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
    with replaced_file(pathlib.Path(workdir, _FOLDER, f'{step}.safetensors')) as partial:
        partial.write_bytes(save(tensors, metadata={_UPDATES: str(updates)}))


def drop_snapshots(workdir: str | os.PathLike[str], after: int) -> None:
    """Removes those of steps after the one that a run goes on from, which it will make again."""
    for step, path in _snapshots(workdir):
        if step > after:
            path.unlink()


def reconstruct_average(workdir: str | os.PathLike[str], last: int, sigma_rel: float) -> Params:
    """The average of a profile up to a step of a run, as NumPy arrays, float32.

    It ends at the newest snapshot up to that step. Logs how far the profile is from the wanted one.

    Args:
      workdir: folder of the training run.
      last: the step.
      sigma_rel: the profile's standard deviation over the run's length.

    Raises:
      InputError: if the run keeps no averages, or theirs don't give that profile.
    """
    snapshots = [path for step, path in _snapshots(workdir) if step <= last]
    if not snapshots:
        raise InputError(
            f'sigma_rel={sigma_rel} needs the averages that a run keeps, and {workdir} has none: '
            'train from the first step with --config.optimizer.ema_profiles="(0.05, 0.1)", or '
            'leave sigma_rel out for the average of its checkpoint'
        )
    times, exponents, places = [], [], []
    for path in snapshots:
        updates, profiles = _describe(path)
        for profile in profiles:
            times.append(updates)
            exponents.append(exponent(float(profile)))
            places.append((path, profile))
    try:
        wanted = exponent(sigma_rel)
    except ValueError as error:
        raise InputError(
            f'sigma_rel={error}: 0.1 averages over about the last 10 % of a run'
        ) from None
    weights, residual = fit_profile(np.array(times), np.array(exponents), float(max(times)), wanted)
    if residual > _LARGEST_RESIDUAL:
        missing = min(100 * residual, 100)
        raise InputError(
            f'sigma_rel={sigma_rel} cannot be made of the {len(times)} averages in {workdir}: '
            f'{missing:.0f} % of it would be missing; choose one nearer to theirs, '
            f'{" and ".join(sorted({profile for _, profile in places}))}, or train with a smaller '
            'config.train.checkpoint_every'
        )
    _logger.info(
        'sigma_rel=%s up to update %d, of %d averages: %.2g %% of the profile is missing',
        sigma_rel,
        max(times),
        len(times),
        100 * residual,
    )
    return _weighted_sum(places, weights)


def fit_profile(
    times: np.ndarray, exponents: np.ndarray, time: float, wanted: float
) -> tuple[np.ndarray, float]:
    """Weights of profiles `[M]`, of the sum 1, whose sum is nearest to a wanted one.

    Least squares, as in Karras et al. 2024, algorithm 3; the profiles' products are closed forms.

    Args:
      times, exponents: the updates t and the γ of each, `[M]`.
      time, wanted: those of the wanted one.

    Returns:
      The weights `[M]`, and the norm of what is missing over that of the wanted profile.
    """
    products = _product(times[:, None], exponents[:, None], times, exponents)
    with_wanted = _product(times, exponents, time, wanted)
    square = _product(time, wanted, time, wanted)
    norms = np.sqrt(np.diag(products))
    scaled = products / norms / norms[:, None]
    weights, *_ = np.linalg.lstsq(scaled, with_wanted / norms, rcond=_LEAST_SINGULAR_VALUE)
    weights = weights / norms
    weights /= np.sum(weights)  # so that what never changed stays
    missing = square - 2 * weights @ with_wanted + weights @ products @ weights
    return weights, float(np.sqrt(max(missing, 0.0) / square))


def _product(time: Any, exponent: Any, other_time: Any, other_exponent: Any) -> Any:
    """Integral of the product of two profiles (γ + 1) τ^γ / t^(γ + 1), each 0 beyond its t."""
    last = np.maximum(time, other_time)
    of_last = np.where(time < other_time, other_exponent, exponent)
    ratio = np.minimum(time, other_time) / last
    both = (exponent + 1) * (other_exponent + 1) / (exponent + other_exponent + 1)
    return both * ratio**of_last / last


def _snapshots(workdir: str | os.PathLike[str]) -> list[tuple[int, pathlib.Path]]:
    """Steps and files, in order."""
    paths = pathlib.Path(workdir, _FOLDER).glob('*.safetensors')
    return sorted((int(path.stem), path) for path in paths if path.stem.isdigit())


def _describe(path: pathlib.Path) -> tuple[int, list[str]]:
    """Updates and profiles of a snapshot."""
    with _opened(path) as file:
        names = dict.fromkeys(name.partition('/')[0] for name in file.keys())  # noqa: SIM118
        updates = (file.metadata() or {}).get(_UPDATES)
        if updates is None:
            raise InputError(f'{path} is no snapshot of averages: move it elsewhere')
        return int(updates), list(names)


def _weighted_sum(places: list[tuple[pathlib.Path, str]], weights: np.ndarray) -> Params:
    """Sum of averages, each of a file and a profile; one tensor at a time is in memory."""
    total: dict[str, Any] = collections.defaultdict(float)
    for (path, profile), weight in zip(places, weights, strict=True):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                first, _, rest = name.partition('/')
                if first == profile:
                    total[rest] = total[rest] + weight * file.get_tensor(name)
    tree: Params = {}
    for name, value in total.items():
        *folders, last = name.split('/')
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value.astype(np.float32)
    return tree


def _opened(path: pathlib.Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework='numpy')
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is damaged ({error}): remove it, or copy it again') from None
