"""Encodes and decodes an audio file, to hear and see what a checkpoint keeps of it.

    python -m m2l_jax.reconstruct --checkpoint=DIR --input=a.wav --output=DIR

Writes a.wav (the reconstruction) and a.png into the output folder and prints a line of figures.
"""

import pathlib
import time

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Workdir of a training run.')
_INPUT = flags.DEFINE_string('input', None, 'Audio file.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the WAV and the PNG.')
_STEPS = flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the decoding noise.')
flags.mark_flags_as_required(['checkpoint', 'input', 'output'])


def reconstruct(codec, audio_path, output, steps: int = 1, seed: int = 0) -> dict[str, float]:
    """Writes the reconstruction of a file as WAV and PNG into `output` and returns its figures.

    Args:
      codec: an `EncoderDecoder`.
      audio_path: any audio file.
      output: folder; made if missing.
      steps: decoding steps.
      seed: of the decoding noise.

    Returns:
      `si_sdr` and `lsd` in dB, `seconds` taken (compilation included), `real_time_factor`.
    """
    from m2l_jax.audio import files
    from m2l_jax.evaluation.metrics import log_spectral_distance, si_sdr
    from m2l_jax.evaluation.report import draw_comparison

    sample_rate = codec.config.spectrogram.sample_rate
    original = files.read(audio_path, sample_rate)
    begin = time.monotonic()
    latents = codec.encode(codec.pad(original))
    reconstruction = codec.decode(latents, steps, seed)[:, : original.shape[1]]
    seconds = time.monotonic() - begin
    figures = {
        'si_sdr': si_sdr(original, reconstruction),
        'lsd': log_spectral_distance(original, reconstruction),
        'seconds': seconds,
        'real_time_factor': original.shape[1] / sample_rate / seconds,
    }
    stem = pathlib.Path(output) / pathlib.Path(audio_path).stem
    files.write(stem.with_suffix('.wav'), reconstruction, sample_rate)
    title = f'{stem.name}: SI-SDR {figures["si_sdr"]:.2f} dB, LSD {figures["lsd"]:.2f} dB'
    draw_comparison(stem.with_suffix('.png'), original, reconstruction, sample_rate, title)
    return figures


def main() -> None:
    """Parses the flags and prints the figures."""
    from m2l_jax.codec.encoder_decoder import EncoderDecoder

    codec = EncoderDecoder.from_checkpoint(_CHECKPOINT.value)
    figures = reconstruct(codec, _INPUT.value, _OUTPUT.value, _STEPS.value, _SEED.value)
    print(
        f'{_INPUT.value}: SI-SDR {figures["si_sdr"]:.2f} dB, '
        f'log-spectral distance {figures["lsd"]:.2f} dB, {figures["seconds"]:.1f} s, '
        f'{figures["real_time_factor"]:.2f} times real time (compilation included)'
    )


if __name__ == '__main__':
    command.run(main)
