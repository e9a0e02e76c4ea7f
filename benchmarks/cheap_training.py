"""Which choices train a small model better in the same time, and by how much?

    python -m benchmarks.cheap_training --path=MUSIC --choose_on=OTHER --held_out=CLIPS --runs=DIR
    python -m benchmarks.cheap_training --recipe=paper …

Trains a recipe, and the recipe with each of Muon, the mixture density, a denoising first stage and
averages chosen after the run, with several seeds; those of one seed from the same parameters and on
the same crops. *In the same time*: a step of each is measured first, in seconds of the processor,
the variants taking turns, at four points of the training; each then takes as many steps as fit into
--seconds, over which its schedules stretch. Only steps count: no compiling, no reading.

Loss, error and latent gain (see `evaluation.noise_bins`) are the averaged parameters', on crops of
--held_out. The length of the averages is chosen by the error on crops of --choose_on. Prints each
figure's mean over seeds, and the difference from the recipe's, seed by seed, with t-intervals.

Each run, once done, adds a line to DIR/runs.jsonl; the command, run again, goes on after the last.
Give it one core: `taskset -c 1`.
"""

import dataclasses
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy.stats
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import report, small_model, timing
from m2l_jax.audio import files
from m2l_jax.audio.levels import from_int16, to_int16
from m2l_jax.audio.spectrogram import SpectrogramConfig, to_spectrogram
from m2l_jax.checkpoint.averages import drop_snapshots, reconstruct_average, write_snapshot
from m2l_jax.configs import default, overfit
from m2l_jax.evaluation.clips import is_silent, read_sound
from m2l_jax.evaluation.noise_bins import make_measure, name_figures
from m2l_jax.interface import command
from m2l_jax.interface.settings import build
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.mesh import make_mesh
from m2l_jax.training.setup import Setup, shardings
from m2l_jax.training.state import (
    TrainState,
    learning_rate_schedule,
    make_optimizer,
    profiles_of,
    start_from,
    unravel,
)
from m2l_jax.training.step import make_train_step

_PATH = flags.DEFINE_string('path', 'm2l_jax/assets/train', 'Audio to train on.')
_CHOOSE_ON = flags.DEFINE_string('choose_on', 'm2l_jax/assets/train', 'To choose averages on.')
_HELD_OUT = flags.DEFINE_string('held_out', 'm2l_jax/assets/heldout', 'To measure on.')
_RECIPE = flags.DEFINE_enum(
    'recipe', 'short', ['short', 'paper'], "configs/small.py's, or the paper's as short."
)
_SECONDS = flags.DEFINE_float('seconds', 180, 'Of the processor, for a run.', lower_bound=1)
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Of each variant.', lower_bound=2)
_CROPS = flags.DEFINE_integer('crops', 64, 'To measure on.', lower_bound=2)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Of measuring steps.', lower_bound=1)
_RUNS = flags.DEFINE_string('runs', None, 'Folder for the runs.', required=True)
_OUTPUT = report.define_output()

_MODEL = dataclasses.replace(
    small_model.CONFIG,
    base_channels=8,
    channel_multipliers=(1, 2, 4),
    downsampling=((2, 2), (4, 2)),
    bottleneck_channels=32,
    embedding_channels=32,
    spectrogram=SpectrogramConfig(window=256, hop=64),
)
_VARIANTS: Mapping[str, Callable[[ConfigDict], Any]] = {
    'recipe': lambda config: None,
    'muon': lambda config: config.optimizer.update(name='muon'),
    'mixture': lambda config: config.consistency.density.update(name='mixture'),
    'denoising': lambda config: config.consistency.schedule.update(name='denoising'),
    'profiles': lambda config: config.optimizer.update(ema_profiles=(0.05, 0.1)),
}
_SNAPSHOTS = 20
_SIGMA_RELS = (0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25)
_POINTS = (1 / 8, 3 / 8, 5 / 8, 7 / 8)  # of the training, at which steps are measured
_STEPS_OF_A_TURN = 3
_FIGURES = ('loss', 'error', 'latent_gain')


class Corpus:
    """The first channels of all files of a path, in memory."""

    def __init__(self, path: str, sample_rate: int):
        paths, _ = files.search(path)
        self._waveforms = [to_int16(read_sound(each, sample_rate)[0]) for each in paths]
        lengths = np.array([len(each) for each in self._waveforms])
        self._shares = lengths / np.sum(lengths)

    def draw(self, random: np.random.Generator, count: int, samples: int) -> np.ndarray:
        """Crops `[count, samples]`, float32, from anywhere but silence."""
        crops: list[np.ndarray] = []
        while len(crops) < count:
            waveform = self._waveforms[random.choice(len(self._shares), p=self._shares)]
            start = random.integers(max(1, len(waveform) - samples))
            crop = from_int16(waveform[start : start + samples])
            if len(crop) == samples and not is_silent(crop):
                crops.append(crop)
        return np.stack(crops)


class Trainer:
    """A variant's training step, compiled once for all seeds and lengths."""

    def __init__(self, name: str, mesh: Mesh):
        self.settings = build(TrainingConfig, _config(name))
        self.setup = Setup(self.settings, mesh)
        self._step = jax.jit(self._train_step, donate_argnums=0)
        self._placed = shardings(self.setup.state)
        self.average = jax.jit(lambda vector: unravel(vector, self.setup.params))

    def start(self, seed: int) -> TrainState:
        """A fresh state."""
        params = self.setup.model.init_params(jax.random.key(seed))
        # Placed as the step returns it, which else would be compiled for either.
        return jax.device_put(start_from(params, self.setup.optimizer), self._placed)

    def at(self, state: TrainState, step: int) -> TrainState:
        """The state as if it were that of another step."""
        return state.replace(step=jax.device_put(np.int32(step), self._placed.step))

    def step(self, state: TrainState, crops: np.ndarray, steps: int, seed: int) -> TrainState:
        """The state after a step of a training of `steps`."""
        state, _ = self._step(state, crops, np.int32(steps), np.uint32(seed))
        return state

    def _train_step(self, state: TrainState, crops: Any, steps: Any, seed: Any) -> Any:
        settings, optimizer = self.settings, self.settings.optimizer
        step = make_train_step(
            self.setup.model,
            settings.consistency,
            functools.partial(make_optimizer, optimizer, shapes=self.setup.params),
            functools.partial(learning_rate_schedule, optimizer),
            optimizer.ema_decay,
            seed,
            self.setup.mesh,
        )
        return step(state, crops, steps)


def main() -> None:
    """Trains what is not trained yet, and prints the figures."""
    lines = pathlib.Path(_RUNS.value, 'runs.jsonl')
    lines.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    known = {(each['variant'], each['seed']) for each in done[1:]}
    wanted = [(name, seed) for seed in range(_SEEDS.value) for name in _VARIANTS]
    if missing := [each for each in wanted if each not in known]:
        done = _run(missing, done, lines)
    _publish(done[0]['seconds_a_step'], done[1:])


def _run(
    missing: Sequence[tuple[str, int]], done: list[dict[str, Any]], lines: pathlib.Path
) -> list[dict[str, Any]]:
    """The lines that are there and those of the missing runs, each written once it is known."""

    def add(line: dict[str, Any]) -> None:
        done.append(line)
        with lines.open('a') as file:
            file.write(json.dumps(line) + '\n')

    trainers = {name: Trainer(name, make_mesh(jax.devices()[:1])) for name in _VARIANTS}
    rate = trainers['recipe'].settings.model.spectrogram.sample_rate
    corpora = [Corpus(flag.value, rate) for flag in (_PATH, _CHOOSE_ON, _HELD_OUT)]
    if not done:
        add({'seconds_a_step': _measure_steps(trainers, corpora[0])})
    seconds = done[0]['seconds_a_step']
    for name, seed in missing:
        steps = round(_SECONDS.value / seconds[name])
        run = _train(trainers[name], steps, seed, corpora, lines.parent / f'{name}-{seed}')
        add({'variant': name, 'seed': seed, 'steps': steps, **run})
    return done


def _config(name: str) -> ConfigDict:
    """The recipe with a change, at the least size."""
    config = overfit.get_config()
    if _RECIPE.value == 'paper':
        config.consistency = default.get_config().consistency
    config.model.update(dataclasses.asdict(_MODEL))
    config.data.update(crop_frames=32)
    _VARIANTS[name](config)
    return config


def _measure_steps(trainers: Mapping[str, Trainer], corpus: Corpus) -> dict[str, float]:
    """Processor seconds of a step of each, medians of rounds averaged over the training."""
    states = {name: trainer.start(0) for name, trainer in trainers.items()}
    settings = trainers['recipe'].settings
    random = np.random.default_rng(0)
    crops = corpus.draw(random, settings.data.batch_size, settings.crop_samples)

    def turn(name: str, point: float, count: int) -> float:
        steps = 1000
        state = trainers[name].at(states[name], int(point * steps))
        begin = time.process_time()
        for _ in range(count):
            state = trainers[name].step(state, crops, steps, 0)
        jax.block_until_ready(state)
        states[name] = state
        return (time.process_time() - begin) / count

    for name in trainers:
        turn(name, 0.5, 1)  # compiles
    means = {name: [] for name in trainers}
    for point in _POINTS:
        ways = {name: functools.partial(turn, name, point, _STEPS_OF_A_TURN) for name in trainers}
        rounds = timing.alternate(ways, _ROUNDS.value)
        for name, values in rounds.items():
            means[name].append(statistics.median(values))
    return {name: timing.rounded(statistics.mean(values)) for name, values in means.items()}


def _train(
    trainer: Trainer, steps: int, seed: int, corpora: Sequence[Corpus], folder: pathlib.Path
) -> dict[str, Any]:
    """Trains, and measures on the held-out crops."""
    settings, state = trainer.settings, trainer.start(seed)
    random = np.random.default_rng(seed)
    sigma_rels = settings.optimizer.ema_profiles
    drop_snapshots(folder, after=0)
    every = max(1, steps // _SNAPSHOTS)
    for number in range(1, steps + 1):
        crops = corpora[0].draw(random, settings.data.batch_size, settings.crop_samples)
        state = trainer.step(state, crops, steps, seed)
        if sigma_rels and (number % every == 0 or number == steps):
            profiles = profiles_of(state)
            trees = map(trainer.average, profiles.averages)
            kept = dict(zip(sigma_rels, trees, strict=True))
            write_snapshot(folder, number, int(profiles.count), kept)
    if not sigma_rels:
        return {'figures': _measure(trainer, trainer.average(state.ema_params), corpora[2])}
    averages = {each: reconstruct_average(folder, steps, each) for each in _SIGMA_RELS}
    errors = {each: _measure(trainer, averages[each], corpora[1])['error'] for each in averages}
    chosen = min(errors, key=errors.get)
    figures = _measure(trainer, averages[chosen], corpora[2])
    return {'figures': figures, 'sigma_rel': chosen, 'errors_chosen_by': errors}


def _measure(trainer: Trainer, params: Any, corpus: Corpus) -> dict[str, float]:
    """Figures by noise level, and their means, on the same crops each time."""
    settings = trainer.settings
    crops = corpus.draw(np.random.default_rng(0), _CROPS.value, settings.crop_samples)
    spectrograms = to_spectrogram(crops, settings.model.spectrogram)
    return name_figures(_measure_of(trainer)(params, spectrograms), settings.model.noise)


@functools.cache
def _measure_of(trainer: Trainer) -> Callable[..., Any]:
    """The measure of noise levels; all variants are measured at the recipe's last Δ."""
    consistency = trainer.settings.consistency
    return make_measure(
        trainer.setup.model, consistency.huber_scale, float(consistency.schedule.delta(1.0))
    )


def _publish(seconds: Mapping[str, float], runs: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of the main figures, and writes all."""
    results, rows = {}, [('', 'steps', 's a step', *_FIGURES)]
    for name in _VARIANTS:
        ours, recipes = (
            [run for run in runs if run['variant'] == each] for each in (name, 'recipe')
        )
        steps = ours[0]['steps']
        results[name] = {'steps': steps, 'seconds_a_step': seconds[name]}
        for figure in ours[0]['figures']:
            values, others = (
                np.array([run['figures'][figure] for run in each]) for each in (ours, recipes)
            )
            results[name][figure] = {
                'mean': _interval(values),
                'over_recipe': _interval(values - others),
            }
        cells = [_cell(results[name][figure], name) for figure in _FIGURES]
        rows.append((name, steps, seconds[name], *cells))
    figures = {
        'recipe': _RECIPE.value,
        'seconds': _SECONDS.value,
        'seeds': _SEEDS.value,
        'sigma_rel': [run['sigma_rel'] for run in runs if 'sigma_rel' in run],
        'variants': results,
    }
    report.publish(figures, rows, _OUTPUT.value)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the width of Student's interval of 95 %."""
    quantile = scipy.stats.t.ppf(0.975, len(values) - 1)
    half = quantile * np.std(values, ddof=1) / len(values) ** 0.5
    return timing.rounded(np.mean(values)), timing.rounded(half)


def _cell(figure: Mapping[str, tuple[float, float]], name: str) -> str:
    mean, half = figure['mean']
    cell = f'{mean:.4g} ± {half:.2g}'
    if name == 'recipe':
        return cell
    difference, half = figure['over_recipe']
    return f'{cell} ({difference:+.2g} ± {half:.2g})'


if __name__ == '__main__':
    command.run(main)
