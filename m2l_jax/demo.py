"""Shows the whole path in minutes, on music that no model has heard.

    python -m m2l_jax.demo --output=build/demo

Reconstructs the bundled held-out piece with the small pretrained model, if this version comes with
it, into `pretrained/`. Then trains `configs/demo.py` on the bundled music and writes into the
output folder: the checkpoint, its reconstruction of that piece as WAV and PNG, and `summary.json`.
"""

import pathlib
import time

from absl import flags

from m2l_jax.interface import command

_CONFIG = command.define_config('configs/demo.py')
_OUTPUT = flags.DEFINE_string('output', 'build/demo', 'Folder for everything that is written.')
_HELD_OUT = pathlib.Path(__file__).parent / 'assets' / 'heldout' / 'greensleeves.ogg'
_LOSS_DELTA = 0.01  # between the extremes of the schedule, 0.1 and 0.001
_LOSS_BATCHES = 8


def run_demo(config, output: pathlib.Path) -> dict[str, float | str]:
    """Reconstructs, trains, and writes `summary.json` into `output`; returns the summary.

    `si_sdr_pretrained` and `lsd_pretrained` are of the model that comes with the package, if any.
    `loss_first` and `loss_last` are the consistency loss of the untrained and the trained model on
    the same training crops, with the same noise and at the same Δ: the schedule moves Δ while it
    trains, so that the losses of its first and last steps cannot be compared.
    """
    from m2l_jax.audio import files
    from m2l_jax.checkpoint.store import load_model
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.consistency.keys import random_key
    from m2l_jax.evaluation.metrics import log_spectral_distance, si_sdr
    from m2l_jax.evaluation.reconstruction import reconstruct_file
    from m2l_jax.interface.json_files import write_json
    from m2l_jax.interface.settings import build
    from m2l_jax.training.config import TrainingConfig
    from m2l_jax.training.loop import train_and_evaluate
    from m2l_jax.training.state import compute_once

    begin = time.monotonic()
    pretrained = reconstruct_pretrained(output / 'pretrained')
    train_and_evaluate(config, output)
    settings = build(TrainingConfig, config)
    model, params = load_model(output)
    trained = EncoderDecoder.from_params(model, params)
    untrained_params = compute_once(lambda: model.init_params(random_key(settings.seed)))
    untrained = trained.with_params(untrained_params)

    figures = reconstruct_file(trained, _HELD_OUT, output)
    original = files.read(_HELD_OUT, settings.model.spectrogram.sample_rate)
    guess = untrained.reconstruct(original)
    loss_first, loss_last = _losses(settings, model, (untrained_params, params))
    summary = {
        **{f'{name}_pretrained': pretrained[name] for name in ('si_sdr', 'lsd') if pretrained},
        'loss_first': loss_first,
        'loss_last': loss_last,
        'loss_is': f'consistency loss at delta {_LOSS_DELTA}, untrained and trained (averaged '
        f'weights), on the same {_LOSS_BATCHES * settings.data.batch_size} training crops',
        'si_sdr': figures['si_sdr'],
        'si_sdr_untrained': si_sdr(original, guess),
        'lsd': figures['lsd'],
        'lsd_untrained': log_spectral_distance(original, guess),
        'seconds': time.monotonic() - begin,
    }
    write_json(output / 'summary.json', summary)
    return summary


def reconstruct_pretrained(output: pathlib.Path) -> dict[str, float]:
    """Writes what the pretrained model makes of the held-out piece; its figures, if it is there."""
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.codec.packaged import packaged_path
    from m2l_jax.evaluation.reconstruction import reconstruct_file

    if not packaged_path('small').is_file():
        return {}
    return reconstruct_file(EncoderDecoder('small'), _HELD_OUT, output)


def _losses(settings, model, candidates) -> list[float]:
    """Mean consistency loss of each candidate's parameters on the first training batches."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from m2l_jax.audio.spectrogram import to_spectrogram
    from m2l_jax.data.crops import CropReader, open_collections
    from m2l_jax.training.step import compute_loss, draw, step_key

    spectrogram_config, data = settings.model.spectrogram, settings.data
    mix = open_collections(data.collections, spectrogram_config.sample_rate, settings.crop_samples)
    reader = CropReader(mix, settings.seed, data.min_rms)
    rows = jnp.arange(settings.data.batch_size)

    @jax.jit
    def loss(params, waveforms, step):
        spectrogram = to_spectrogram(waveforms, spectrogram_config)
        key = step_key(settings.seed, step)
        density = settings.consistency.density
        draws = draw(key, rows, spectrogram.shape[1:], model, density)
        scale = settings.consistency.huber_scale
        return jnp.mean(compute_loss(params, model, spectrogram, draws, _LOSS_DELTA, scale)[0])

    totals = np.zeros(len(candidates))
    for step in range(_LOSS_BATCHES):
        waveforms = np.stack([reader.read(step, int(row)) for row in rows])
        totals += [float(loss(params, waveforms, step)) for params in candidates]
    return [float(total) for total in totals / _LOSS_BATCHES]


def main() -> None:
    """Parses the flags and prints what to look at."""
    from m2l_jax.codec.compile_cache import use_compile_cache

    use_compile_cache()
    output = pathlib.Path(_OUTPUT.value)
    summary = run_demo(command.read_config(_CONFIG), output)
    for name, value in summary.items():
        print(f'{name:>16}  {value:.4g}' if isinstance(value, float) else f'{name:>16}  {value}')
    if 'lsd_pretrained' in summary:
        print(f'The pretrained model: {output}/pretrained/{_HELD_OUT.stem}.wav and .png')
    else:
        print('This version comes without a pretrained model: all is of the one trained just now')
    print(f'Look at {output}/{_HELD_OUT.stem}.png and listen to {output}/{_HELD_OUT.stem}.wav')


if __name__ == '__main__':
    command.run(main)
