"""Are the latents of audio that shares batches with longer audio those of the audio alone?

    python -m tests.drills.masking --input=/data/music --cuts=200

Cuts recordings to random lengths and encodes the cuts in shared, padded, masked batches, at full
size with random weights in all layers; then each by itself with the PyTorch package, which pads
nothing. Prints JSON: signal-to-noise ratios in dB, and the programs that were compiled once every
length that is padded to had been met.
"""

import time
import types

import jax
import numpy as np
from absl import app, flags

from benchmarks import report
from m2l_jax.audio import files
from m2l_jax.codec.chunks import bucket
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.paths import to_json
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.reference import random_tensors, reference_network
from m2l_jax.torch_weights.state_dict import from_state_dict

_INPUT = flags.DEFINE_string('input', None, 'Folder of recordings.', required=True)
_CUTS = flags.DEFINE_integer('cuts', 200, '')
_LONGEST = flags.DEFINE_float('longest', 4.0, 'Seconds of a cut at most.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 4, 'Rows at once.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the cuts.')

_SAMPLE_RATE = 44_100
_COMPILED = '/jax/core/compile/backend_compile_duration'


def main(_):
    """Encodes, compares, and prints the figures."""
    use_compile_cache()
    config = ModelConfig()
    tensors = random_tensors(config)
    codec = EncoderDecoder.from_params(Music2Latent(config), from_state_dict(tensors, config))
    cuts = _cut(codec.least_samples)
    _warm_up(codec)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == _COMPILED else None
    )
    begin = time.monotonic()
    together = codec.encode_batch(cuts, max_batch_size=_BATCH_SIZE.value)
    seconds = time.monotonic() - begin
    alone = _alone(config, tensors, cuts)
    ratios = [_snr(ours, theirs) for ours, theirs in zip(together, alone, strict=True)]
    print(
        to_json(
            {
                **report.describe_machine(),
                'cuts': len(cuts),
                'lengths': len({latents.shape[2] for latents in together}),
                'audio_seconds': round(sum(cut.shape[1] for cut in cuts) / _SAMPLE_RATE, 1),
                'snr_db_least': round(min(ratios), 1),
                'snr_db_median': round(float(np.median(ratios)), 1),
                'compiled_after_warm_up': len(compiled),
                'seconds': round(seconds, 1),
            },
        )
    )


def _cut(least: int) -> list[np.ndarray]:
    """Mono cuts `[1, samples]` of random lengths from random places."""
    random = np.random.default_rng(_SEED.value)
    recordings, _ = files.search(_INPUT.value)
    cuts = []
    while len(cuts) < _CUTS.value:
        path = recordings[random.integers(len(recordings))]
        length = int(random.integers(least, _LONGEST.value * _SAMPLE_RATE))
        room = files.read_info(path).samples_at(_SAMPLE_RATE) - length
        if room > 0:
            start = int(random.integers(room))
            cuts.append(files.read(path, _SAMPLE_RATE, start, length)[:1])
    return cuts


def _warm_up(codec: EncoderDecoder) -> None:
    """Meets every length that cuts are padded to, in a full batch."""
    size = codec.chunking().size
    longest = codec.latents_in(int(_LONGEST.value * _SAMPLE_RATE))
    for length in sorted({bucket(latents, size) for latents in range(1, longest + 1)}):
        silence = np.zeros((_BATCH_SIZE.value, codec.padded_samples(length * 4096)), np.float32)
        codec.encode(silence, max_batch_size=_BATCH_SIZE.value)


def _alone(config: ModelConfig, tensors, cuts: list[np.ndarray]):
    from music2latent import inference

    with reference_network(config, tensors) as network:
        trainer = types.SimpleNamespace(gen=network)
        for cut in cuts:
            yield inference.encode_audio_inference(
                cut, trainer, _SAMPLE_RATE * 60, 1, 'cpu'
            ).numpy()


def _snr(ours: np.ndarray, theirs: np.ndarray) -> float:
    error = np.linalg.norm(ours.astype(np.float64) - theirs)
    return float(20 * np.log10(np.linalg.norm(theirs) / error))


if __name__ == '__main__':
    app.run(main)
