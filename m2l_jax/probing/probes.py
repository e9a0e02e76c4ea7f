"""Shallow probes on frozen features, trained by Adam and chosen on the validation split."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from m2l_jax.consistency.keys import random_key
from m2l_jax.interface.devices import standard_jax
from m2l_jax.probing.examples import TEST, TRAIN, VALIDATION
from m2l_jax.probing.splits import Problem

LINEAR, MLP = PROBES = ('linear', 'mlp')

_LEAST_STD = 1e-6  # of a feature's mean; less is rounding


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """A probe and its training.

    Attributes:
      kind: 'linear', or 'mlp' with one hidden layer and ReLU.
      hidden: units of that layer.
      learning_rates: of Adam; each is tried.
      weight_decay: decoupled, of the weights and not of the biases.
      batch: clips in a step; fewer of smaller data sets.
      most_epochs: passes over the training split.
      patience: epochs without a better validation loss after which training ends.
    """

    kind: str = LINEAR
    hidden: int = 256
    learning_rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    weight_decay: float = 1e-3
    batch: int = 64
    most_epochs: int = 200
    patience: int = 10


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained probe's predictions.

    Attributes:
      scores: logits of the test split, `[N, classes]`.
      learning_rate: which gave the best validation loss.
      epochs: after which it was best.
      validation_loss: there.
    """

    scores: np.ndarray
    learning_rate: float
    epochs: int
    validation_loss: float


@standard_jax()
def fit_probe(
    features: Mapping[str, np.ndarray], problem: Problem, config: ProbeConfig, seed: int
) -> Fitted:
    """Trains a probe with each learning rate and keeps the best one on the validation split.

    The loss is the cross entropy of classes, or the mean one of each tag. Training stops early;
    what is kept is the epoch of least validation loss.

    Args:
      features: `[N, C]` of each split, as of `standardise`.
      problem: gives the targets.
      config: see there.
      seed: of the initial weights and of the order of clips.
    """
    train = features[TRAIN], _one_hot(problem, TRAIN)
    validation = features[VALIDATION], _one_hot(problem, VALIDATION)
    is_tagging = problem.targets[TRAIN].ndim == 2
    best = None
    for rate in config.learning_rates:
        params, loss, epoch = _train(config, is_tagging, random_key(seed), rate, train, validation)
        if best is None or loss < best[1]:
            best = params, float(loss), int(epoch), rate
    params, loss, epoch, rate = best
    return Fitted(np.asarray(_apply(params, features[TEST])), rate, epoch, loss)


def standardise(features: np.ndarray, problem: Problem) -> dict[str, np.ndarray]:
    """Each split's features `[N, C]` with the training split's mean 0 and deviation 1.

    Features that are constant in training become 0.
    """
    training = features[problem.numbers[TRAIN]]
    mean = np.mean(training, axis=0, dtype=np.float64)
    std = np.std(training, axis=0, dtype=np.float64)
    varies = std > _LEAST_STD * np.maximum(np.abs(mean), _LEAST_STD)
    scale = np.where(varies, 1 / np.where(varies, std, 1), 0).astype(np.float32)
    mean = mean.astype(np.float32)
    return {split: (features[part] - mean) * scale for split, part in problem.numbers.items()}


def _one_hot(problem: Problem, split: str) -> np.ndarray:
    targets = problem.targets[split]
    if targets.ndim == 2:
        return targets.astype(np.float32)
    return np.eye(len(problem.classes), dtype=np.float32)[targets]


def _init(key: jax.Array, config: ProbeConfig, inputs: int, outputs: int) -> list[dict[str, Any]]:
    """Weights and biases of each layer; a linear probe begins at zero, and so does a last layer."""
    widths = (inputs, outputs) if config.kind == LINEAR else (inputs, config.hidden, outputs)
    layers = []
    for number, (ins, outs) in enumerate(itertools.pairwise(widths)):
        weights = jnp.zeros((ins, outs))
        if number < len(widths) - 2:
            key, own = jax.random.split(key)
            weights = jax.random.normal(own, (ins, outs)) * jnp.sqrt(2 / ins)
        layers.append({'weights': weights, 'bias': jnp.zeros(outs)})
    return layers


def _apply(layers: list[dict[str, Any]], features: jax.Array) -> jax.Array:
    """Logits `[N, classes]`."""
    for layer in layers[:-1]:
        features = jax.nn.relu(features @ layer['weights'] + layer['bias'])
    return features @ layers[-1]['weights'] + layers[-1]['bias']


def _loss(
    layers: list[dict[str, Any]], features: jax.Array, targets: jax.Array, is_tagging: bool
) -> jax.Array:
    logits = _apply(layers, features)
    if is_tagging:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets))
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train(
    config: ProbeConfig,
    is_tagging: bool,
    key: jax.Array,
    rate: jax.Array,
    train: tuple[jax.Array, jax.Array],
    validation: tuple[jax.Array, jax.Array],
) -> tuple[Any, jax.Array, jax.Array]:
    """Parameters, loss and number of the epoch of least validation loss."""
    clips, batch = len(train[0]), min(config.batch, len(train[0]))
    steps = clips // batch
    params = _init(key, config, train[0].shape[1], train[1].shape[1])
    decayed = [{'weights': True, 'bias': False} for _ in params]
    optimizer = optax.adamw(rate, weight_decay=config.weight_decay, mask=decayed)

    def step(state: tuple[Any, Any], chosen: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, optimizer_state = state
        gradient = jax.grad(_loss)(params, train[0][chosen], train[1][chosen], is_tagging)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), None

    def run_epoch(state: Any) -> Any:
        params, optimizer_state, epoch, best = state
        order = jax.random.permutation(jax.random.fold_in(key, epoch), clips)
        batches = order[: steps * batch].reshape(steps, batch)
        (params, optimizer_state), _ = jax.lax.scan(step, (params, optimizer_state), batches)
        loss = _loss(params, *validation, is_tagging)
        new = params, loss, epoch + 1
        best = jax.tree.map(functools.partial(jnp.where, loss < best[1]), new, best)
        return params, optimizer_state, epoch + 1, best

    def goes_on(state: Any) -> jax.Array:
        _, _, epoch, best = state
        return (epoch < config.most_epochs) & (epoch - best[2] < config.patience)

    first = params, _loss(params, *validation, is_tagging), 0
    state = params, optimizer.init(params), 0, first
    return jax.lax.while_loop(goes_on, run_epoch, state)[3]
