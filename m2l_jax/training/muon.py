"""Muon for the kernels of inner layers, and RAdam for all other parameters."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

# Parts of encoder, decoder and UNet that are first or last layers, or embed the noise level.
_OUTER = frozenset({'conv_in', 'conv_out', 'conditioning', 'scale_in', 'scale_out'})
_RMS = 0.2  # of Muon's updates; Liu et al. 2025, section 2.2: as AdamW's are

Leaves = list[jax.Array]


def matrices_of(path: tuple[Any, ...]) -> int:
    """The matrices that Muon sees in a parameter at a path of keys; 0 for one that is RAdam's.

    Muon's are the kernels of residual blocks, resampling and cross connections, and of the layers
    at both ends of the bottleneck's stacks: one matrix each, but three in a kernel of attention's
    queries, keys and values. RAdam's are biases, norms, gains, the noise level's embedding and its
    gains of frequencies, and the first and last layers of encoder, decoder and UNet.
    """
    names = [key.key for key in path]
    if names[-1] != 'kernel' or not _OUTER.isdisjoint(names[1:2]):
        return 0
    return 3 if names[-2] == 'qkv' else 1


def scale_by_muon_or_radam(b1: float, b2: float, momentum: float) -> optax.GradientTransformation:
    """Directions of nested dictionaries of parameters, to be multiplied by one learning rate.

    A kernel `[..., in, out]` is a matrix of A = ∏(…)·in rows and B = out columns. With G_t its
    gradient, μ the momentum and NS five Newton-Schulz iterations, which bring all singular values
    near 1 (Jordan et al. 2024, "Muon"):

        M_t = μ M_{t-1} + (1 - μ) G_t
        O_t = NS(μ M_t / (1 - μ^{t+1}) + (1 - μ) G_t / (1 - μ^t))
        direction = 0.2 √max(A, B) O_t

    The last line, from Liu et al. 2025 ("Muon is scalable for LLM training", eq. 4), gives all
    directions the root mean square 0.2 that Adam's have, so that a learning rate serves both. The
    other parameters get RAdam's directions (Liu et al. 2020).

    The state has the form of RAdam's: `mu` holds both momenta, and `nu` is 0 for the kernels.
    """
    muon = scale_by_muon(beta=momentum, weight_dimension_numbers=_dimensions)
    radam = optax.scale_by_radam(b1, b2)

    def update(
        gradient: Any, state: optax.ScaleByAdamState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAdamState]:
        (kernels, others), (momenta, first), (unused, second) = map(
            _split, (gradient, state.mu, state.nu)
        )
        of_kernels = muon.init(kernels)._replace(count=state.count, mu=momenta)
        kernels, of_kernels = muon.update(kernels, of_kernels)
        kernels = [_RMS * max(each.shape[0], each.shape[2]) ** 0.5 * each for each in kernels]
        others, of_others = radam.update(others, optax.ScaleByAdamState(state.count, first, second))
        after = of_others._replace(
            mu=_join(gradient, of_kernels.mu, of_others.mu),
            nu=_join(gradient, unused, of_others.nu),
        )
        return _join(gradient, kernels, others), after

    return optax.GradientTransformation(radam.init, update)


def _dimensions(kernels: Leaves) -> list[MuonDimensionNumbers]:
    return [MuonDimensionNumbers(reduction_axis=0, output_axis=2) for _ in kernels]


def _split(tree: Any) -> tuple[Leaves, Leaves]:
    """Muon's leaves, as `[A, matrices, B]`, and RAdam's."""
    kernels, others = [], []
    for path, leaf in jax.tree.leaves_with_path(tree):
        if count := matrices_of(path):
            kernels.append(leaf.reshape(-1, count, leaf.shape[-1] // count))
        else:
            others.append(leaf)
    return kernels, others


def _join(like: Any, kernels: Leaves, others: Leaves) -> Any:
    """The inverse of `_split`, as a tree like another."""
    kernels, others = iter(kernels), iter(others)
    return jax.tree.map_with_path(
        lambda path, leaf: next(kernels).reshape(leaf.shape) if matrices_of(path) else next(others),
        like,
    )
