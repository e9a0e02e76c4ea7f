"""Shows what the model that comes with this package does, then trains it further: in minutes.

    python -m m2l_jax.demo --output=build/demo

Reconstructs eight seconds of the bundled held-out piece and a voice, which the model has not
heard, into `model/`: original and reconstruction as WAV, and pictures of both. Then fine-tunes the
model on the bundled music as `configs/demo.py` says, in `run/`, and reconstructs the piece once
more, into `fine-tuned/`. Prints figures, and writes them to `summary.json`.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping

from absl import flags

from m2l_jax.interface import command

_CONFIG = command.define_config('configs/demo.py')
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
_FIGURES = {
    'si_sdr': 'SI-SDR, dB (higher is better)',
    'lsd': 'log-spectral distance, dB (lower)',
    'mr_stft': 'multi-resolution STFT (lower)',
    'mel': 'mel distance (lower)',
    'latent_gain': 'latent gain (higher)',
    'latent_gain_magnitude': 'latent gain of magnitudes',
}


def run_demo(config, output: pathlib.Path) -> dict:
    """Reconstructs, fine-tunes, prints, and writes `summary.json` into `output`; returns it.

    Args:
      config: the fields of `TrainingConfig`. If its `init_from` names a packaged model that is not
        there, it starts from random parameters.
      output: folder; made if missing.
    """
    from m2l_jax.checkpoint.store import load_model
    from m2l_jax.codec.packaged import is_packaged, packaged_path
    from m2l_jax.interface.json_files import write_json
    from m2l_jax.interface.settings import build
    from m2l_jax.training.config import TrainingConfig
    from m2l_jax.training.loop import train_and_evaluate

    begin = time.monotonic()
    if is_packaged(config.init_from) and not packaged_path(config.init_from).is_file():
        config.init_from = ''
    settings = build(TrainingConfig, config)
    codec = _open(settings)
    print(f'Model: {settings.init_from or "untrained"}.', _EXPECTED.get(settings.init_from, ''))
    measure, piece, voice = _open_clips(settings, codec)
    reconstructed = _reconstruct(codec, [piece, voice], output / 'model')
    _print_table('Reconstruction', reconstructed)
    print(
        'An untrained model has about 30 dB of log-spectral distance on the piece; 0 is the best.'
    )
    print('SI-SDR compares waveforms: it stays low as long as phases are made up.', flush=True)

    before = reconstructed[piece.name] | measure(codec.params)
    train_and_evaluate(config, output / 'run')
    _, params = load_model(output / 'run')
    tuned = _reconstruct(codec.with_params(params), [piece], output / 'fine-tuned')
    changes = {'before': before, 'after': tuned[piece.name] | measure(params)}
    _print_table(f'{settings.train.steps} steps of fine-tuning', changes)
    print(
        'Latent gain: how much larger the error gets with latents of another place; 1: not at all.'
    )
    summary = {
        'model': settings.init_from or 'untrained',
        'reconstructed': reconstructed,
        'fine_tuned': {'steps': settings.train.steps, **changes},
        'seconds': time.monotonic() - begin,
    }
    write_json(output / 'summary.json', summary)
    return summary


def _open(settings):
    """The model that the run starts from, to encode and decode with."""
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.consistency.keys import random_key
    from m2l_jax.model.autoencoder import Music2Latent
    from m2l_jax.training.state import compute_once

    if settings.init_from:
        return EncoderDecoder(settings.init_from)
    model = Music2Latent(settings.model)
    params = compute_once(lambda: model.init_params(random_key(settings.seed)))
    return EncoderDecoder.from_params(model, params)


def _open_clips(settings, codec):
    """The function from parameters to latent gains on the piece, the piece, and the voice."""
    from m2l_jax.audio import files
    from m2l_jax.evaluation.held_out import Clip, HeldOutClips

    held_out = HeldOutClips(
        dataclasses.replace(settings.evaluation, path=str(_PIECE), seconds=_SECONDS),
        codec.model,
        settings.data.crop_frames,
        settings.consistency.huber_scale,
    )

    def measure(params) -> dict[str, float]:
        figures = held_out.measure_noise_levels(params)
        return {name: figures[name] for name in ('latent_gain', 'latent_gain_magnitude')}

    voice = files.read(_VOICE, codec.config.spectrogram.sample_rate)
    piece = held_out.clips[0].waveform
    return measure, Clip(_PIECE.stem, piece), Clip(_VOICE.stem, voice)


def _reconstruct(codec, clips: list, output: pathlib.Path) -> dict[str, dict[str, float]]:
    """Writes clips and their reconstructions; returns the figures of each by its name."""
    from m2l_jax.evaluation.quality import reconstruct_clips, write_media
    from m2l_jax.interface.paths import new_folder

    figures = {}
    with new_folder(output) as folder:
        for result in reconstruct_clips(codec, clips, denoising_steps=1, seed=0):
            write_media(folder, result, codec.config.spectrogram.sample_rate)
            figures[result.clip.name] = result.figures
    return figures


def _print_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    """A row for each figure, named in `_FIGURES`, that the columns have."""
    print(f'\n{title:<34}', *(f'{name:>20}' for name in columns))
    for figure, name in _FIGURES.items():
        if all(figure in values for values in columns.values()):
            print(f'{name:<34}', *(f'{values[figure]:>20.3f}' for values in columns.values()))
    print(flush=True)


def main() -> None:
    """Parses the flags and says where to look."""
    from m2l_jax.codec.compile_cache import use_compile_cache

    use_compile_cache()
    output = pathlib.Path(_OUTPUT.value)
    seconds = run_demo(command.read_config(_CONFIG), output)['seconds']
    print(f'\nDone in {seconds:.0f} s. Listen and look, *.original.wav beside *.wav and *.png:')
    print(f'  {output}/model/')
    print(f'  {output}/fine-tuned/')


if __name__ == '__main__':
    command.run(main)
