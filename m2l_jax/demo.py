"""Demonstrates the model that comes with this package, then trains it further: in minutes.

    python -m m2l_jax.demo --output=build/demo

Reconstructs eight seconds of the bundled held-out piece and a voice, which the model has not
heard, into `model/`: original and reconstruction as WAV, and pictures of both. Then fine-tunes the
model on the bundled music as `configs/demo.py` says, in `run/`, and reconstructs the piece once
more, into `fine-tuned/`. Prints figures, and writes them to `summary.json`.
"""

import contextlib
import pathlib
import time
from collections.abc import Mapping

from absl import flags

from m2l_jax.interface import command

command.define_config('demo')
_OUTPUT = flags.DEFINE_string('output', 'build/demo', 'Folder for everything that is written.')

_ASSETS = pathlib.Path(__file__).parent / 'assets'
_PIECE = _ASSETS / 'heldout' / 'greensleeves.ogg'
_VOICE = _ASSETS / 'voice' / 'au_clair_de_la_lune.ogg'
_SECONDS = 8.0  # of the piece: as long as the voice, so that both are compiled once
_EXPECTED = {
    'small': 'It was trained for minutes, on one GPU.\n'
    'Expect to recognise the tune and the beat, in rough and dull sound.',
    '': 'Expect noise: this version comes without a trained model, and minutes are too few.',
}
_GAINS = {
    'latent_gain': 'latent gain (higher)',
    'latent_gain_magnitude': 'latent gain of magnitudes (higher)',
}


def run_demo(config, output: pathlib.Path) -> dict:
    """Reconstructs, fine-tunes, prints, and writes `summary.json` into `output`; returns it.

    Args:
      config: the fields of `TrainingConfig`. If its `init_from` names a packaged model that is not
        there, it starts from random parameters.
      output: folder; made if missing.

    Raises:
      InputError: if `output` holds a finished demo, or the initial weights do not fit the config.
    """
    from m2l_jax.audio import files
    from m2l_jax.checkpoint.store import load_model
    from m2l_jax.codec.weights import is_packaged, packaged_path
    from m2l_jax.evaluation.clips import Clip
    from m2l_jax.evaluation.quality import measure_noise_levels
    from m2l_jax.interface.paths import write_json
    from m2l_jax.interface.settings import build
    from m2l_jax.training.config import TrainingConfig
    from m2l_jax.training.loop import train_and_evaluate

    begin, run = time.monotonic(), output / 'run'
    if is_packaged(config.init_from) and not packaged_path(config.init_from).is_file():
        config.init_from = ''
    settings = build(TrainingConfig, config)
    _check_unfinished(run, settings.train.steps)
    codec = _open(settings, run)
    rate = codec.sample_rate
    piece = Clip(_PIECE.stem, files.read(_PIECE, rate, samples=round(_SECONDS * rate)))
    voice = Clip(_VOICE.stem, files.read(_VOICE, rate))

    def measure_gains(codec) -> dict[str, float]:
        figures = measure_noise_levels(codec, [piece], settings.data.crop_frames)
        return {name: figures[name] for name in _GAINS}

    print(f'Model: {settings.init_from or "untrained"}.', _EXPECTED.get(settings.init_from, ''))
    reconstructed = _reconstruct(codec, [piece, voice], output / 'model')
    _print_table('Reconstruction', reconstructed)
    print(
        'An untrained model has about 30 dB of log-spectral distance on the piece; 0 is the best.\n'
        'SI-SDR compares waveforms: at 0 dB half of the energy is not the original.',
        flush=True,
    )
    before = reconstructed[piece.name] | measure_gains(codec)
    train_and_evaluate(config, run)
    tuned = codec.with_params(load_model(run)[1])
    after = _reconstruct(tuned, [piece], output / 'fine-tuned')[piece.name] | measure_gains(tuned)
    changes = {'before': before, 'after': after}
    _print_table(f'{settings.train.steps} steps of fine-tuning', changes)
    print('Latent gain: the error with latents of another place over that with its own.')
    summary = {
        'model': settings.init_from or 'untrained',
        'reconstructed': reconstructed,
        'fine_tuned': {'steps': settings.train.steps, **changes},
        'seconds': time.monotonic() - begin,
    }
    write_json(output / 'summary.json', summary)
    return summary


def _check_unfinished(run: pathlib.Path, steps: int) -> None:
    """Refuses a finished run, which would not train; an interrupted one goes on."""
    from m2l_jax.checkpoint.store import CheckpointStore, holds_checkpoint
    from m2l_jax.interface.errors import InputError

    if not holds_checkpoint(run):
        return
    with contextlib.closing(CheckpointStore(run)) as store:
        if store.latest_step() >= steps:
            raise InputError(
                f'{run} holds a finished training run: remove it or choose another --output'
            )


def _open(settings, run: pathlib.Path):
    """Opens the model that the run starts from, to encode and decode with."""
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.consistency.keys import random_key
    from m2l_jax.interface.devices import compute_once
    from m2l_jax.model.autoencoder import Music2Latent
    from m2l_jax.training.resume import read_initial

    model, initial = Music2Latent(settings.model), read_initial(settings, run)
    if initial is not None:
        return EncoderDecoder.from_params(model, initial.params)
    if settings.init_from:  # an interrupted run goes on
        return EncoderDecoder(settings.init_from)
    params = compute_once(lambda: model.init_params(random_key(settings.seed)))
    return EncoderDecoder.from_params(model, params)


def _reconstruct(codec, clips: list, output: pathlib.Path) -> dict[str, dict[str, float]]:
    """Writes clips and their reconstructions; returns the figures of each by its name."""
    from m2l_jax.evaluation.reconstruction import reconstruct
    from m2l_jax.interface.paths import new_folder

    with new_folder(output) as folder:
        results = [reconstruct(codec, clip) for clip in clips]
        for result in results:
            result.write(folder)
    return {result.clip.name: result.figures for result in results}


def _print_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a row for each figure that the columns have."""
    from m2l_jax.evaluation.metrics import METRICS
    from m2l_jax.interface.tables import format_table

    names = {name: metric.heading for name, metric in METRICS.items()} | _GAINS
    rows = [
        (name, *(f'{values[figure]:.3f}' for values in columns.values()))
        for figure, name in names.items()
        if all(figure in values for values in columns.values())
    ]
    print(f'\n{format_table([(title, *columns), *rows])}\n', flush=True)


def main() -> None:
    """Parses the flags and prints the written folders."""
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.training.config import TrainingConfig

    config = command.read_config(TrainingConfig)
    use_compile_cache()
    output = pathlib.Path(_OUTPUT.value)
    seconds = run_demo(config, output)['seconds']
    print(f'\nDone in {seconds:.0f} s. Listen and look, *.original.wav beside *.wav and *.png:')
    print(f'  {output}/model/\n  {output}/fine-tuned/')


if __name__ == '__main__':
    command.run(main)
