"""Compares an accelerator's numbers with PyTorch's on a CPU, and bfloat16 with float32."""

import jax
import numpy as np

from benchmarks.ours import device_name
from benchmarks.workload import Workload
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.metrics import si_sdr
from m2l_jax.evaluation.parity import compare_with_reference, measure
from m2l_jax.interface.devices import compute_once
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.reference import random_tensors
from m2l_jax.torch_weights.state_dict import from_state_dict


class Numbers:
    """Compares; made by a `Remote` in its own process.

    Args:
      config: the model's.
      seconds: of the audio.
    """

    def __init__(self, config: ModelConfig, seconds: float):
        self._config = config
        self._audio = Workload(pieces=1, channels=2, seconds_of_a_piece=seconds).audio(config)

    def compare(self) -> dict:
        """Each stage against the package's in float32, and bfloat16 against float32, in dB.

        Both precisions decode the latents that float32 gives.
        """
        tensors = random_tensors(self._config)
        stages = compare_with_reference(self._config, tensors, self._audio)
        model = Music2Latent(self._config)
        weights = {
            'random in all layers': from_state_dict(tensors, self._config),
            'as initialised': compute_once(lambda: model.init_params(jax.random.key(0))),
        }
        first = next(iter(weights.values()))
        full = EncoderDecoder.from_params(model, first)
        half = EncoderDecoder.from_params(model, first, dtype='bfloat16')
        return {
            'device': device_name(),
            'float32_against_the_package': {
                stage.name: {
                    'snr': round(stage.snr, 1),
                    'at_least': stage.tolerance,
                    'passed': stage.passed,
                }
                for stage in stages
            },
            'bfloat16_against_float32': {
                name: self._ratios(full.with_params(params), half.with_params(params))
                for name, params in weights.items()
            },
        }

    def _ratios(self, full: EncoderDecoder, half: EncoderDecoder) -> dict[str, float]:
        latents = full.encode(self._audio)
        waveform, halved = full.decode(latents), half.decode(latents)
        return {
            'latents_snr': _snr('latents', half.encode(self._audio), latents),
            'waveform_snr': _snr('waveform', halved, waveform),
            'waveform_si_sdr': round(si_sdr(waveform, halved), 1),
        }


def _snr(name: str, ours: np.ndarray, reference: np.ndarray) -> float:
    return round(measure(name, ours, reference, 'bfloat16').snr, 1)
