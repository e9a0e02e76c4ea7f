"""Measures how well a model reconstructs audio, beside the same model untrained, and noise.

    python -m m2l_jax.evaluate --checkpoint=DIR --output=out
    python -m m2l_jax.evaluate --checkpoint=DIR --input=/data/held_out --seconds=10 --output=out

Cuts each file of --input, the bundled held-out music if not given, into pieces of --seconds. Writes
`report.json`, with SI-SDR, log-spectral, multi-resolution STFT and mel distance of each piece and
their means, null where not finite, and the first --media of the pieces as WAV, original and
reconstruction, and as pictures. `untrained_mean` is of the same model untrained,
`shaped_noise_mean` of noise with the average spectrum of each piece, the baseline: a model that is
of use has a smaller mel distance. `by_noise_level` tells how much the latents are used:
`latent_gain` is the error with another crop's latents over that with the own.
"""

import dataclasses
import pathlib

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = command.define_checkpoint()
_INPUT = flags.DEFINE_string(
    'input',
    str(pathlib.Path(__file__).parent / 'assets' / 'heldout'),
    'Audio file or folder; several with commas between.',
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for report, audio and pictures.')
_SECONDS = command.define_finite_float('seconds', 4.0, 'Of each piece.')
_MEDIA = flags.DEFINE_integer('media', 5, 'Pieces to write as audio and pictures.', lower_bound=0)
_STEPS = flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
_SEED = command.define_seed('Of the decoding noise, and of the untrained model.')
flags.mark_flags_as_required(['checkpoint', 'output'])


def main() -> None:
    """Parses the flags, writes the report, and prints the means."""
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.consistency.keys import random_key
    from m2l_jax.evaluation import metrics, quality
    from m2l_jax.evaluation.shaped_noise import shaped_noise
    from m2l_jax.interface.json_files import write_json
    from m2l_jax.interface.paths import new_folder
    from m2l_jax.training.state import compute_once

    use_compile_cache()
    codec = EncoderDecoder(_CHECKPOINT.value)
    rate = codec.config.spectrogram.sample_rate
    clips, left_out, skipped = quality.cut_clips(_INPUT.value, rate, _SECONDS.value)
    options = {'denoising_steps': _STEPS.value, 'seed': _SEED.value}
    with new_folder(_OUTPUT.value) as folder:
        rows = []
        for number, result in enumerate(quality.reconstruct_clips(codec, clips, **options)):
            rows.append(result.figures)
            if number < _MEDIA.value:
                quality.write_media(folder, result, rate)
        model, key = codec.model, random_key(_SEED.value)
        untrained = codec.with_params(compute_once(lambda: model.init_params(key)))
        untrained_results = quality.reconstruct_clips(untrained, clips, **options)
        noise_rows = [
            metrics.measure(clip.waveform, shaped_noise(clip.waveform), rate) for clip in clips
        ]
        report = {
            'checkpoint': _CHECKPOINT.value,
            'model': codec.model_id,
            'config': codec.config.record(),
            **options,
            'seconds': _SECONDS.value,
            'mean': metrics.mean_figures(rows),
            'untrained_mean': metrics.mean_figures([each.figures for each in untrained_results]),
            'shaped_noise_mean': metrics.mean_figures(noise_rows),
            'by_noise_level': quality.measure_noise_levels(codec, clips),
            'left_out': dataclasses.asdict(left_out),
            'skipped': skipped,
            'clips': {clip.name: row for clip, row in zip(clips, rows, strict=True)},
        }
        write_json(folder / 'report.json', report)
    _print_means(report)
    for reason in skipped.values():
        print(f'skipped: {reason}')
    if left_out.files:
        print(left_out.describe())


def _print_means(report: dict) -> None:
    print(f'{len(report["clips"])} pieces of {report["seconds"]:g} s, seed {report["seed"]}')
    for name in ('mean', 'untrained_mean', 'shaped_noise_mean'):
        figures = report[name]
        print(
            f'{name:>17}: mel distance {figures["mel"]:.3f}, SI-SDR {figures["si_sdr"]:.2f} dB, '
            f'log-spectral distance {figures["lsd"]:.2f} dB, '
            f'multi-resolution STFT {figures["mr_stft"]:.3f}'
        )
    levels = report['by_noise_level']
    print(
        f'{"latents":>17}: gain {levels["latent_gain"]:.3f}, of magnitudes '
        f'{levels["latent_gain_magnitude"]:.3f} (the least from σ = 5 on; 1 if unused), '
        f'spread {levels["latent_std"]:.3f}, {levels["latents_saturated"]:.1%} saturated'
    )


if __name__ == '__main__':
    command.run(main)
