"""The count of multiplications, against the published figures and PyTorch's own counter."""

import pytest

from benchmarks import operations
from m2l_jax.model.config import ModelConfig
from tests.parity.small import CONFIG, require_reference


def test_the_published_figures():
    parts = operations.forward(ModelConfig(), 64)
    in_billions = {name: round(count / 1e9, 1) for name, count in parts.items()}
    assert in_billions == {'encoder': 17.4, 'decoder': 28.3, 'unet': 88.0}
    assert round(operations.training_step(ModelConfig(), 64) / 1e12, 2) == 0.98


@pytest.mark.parametrize('frames', [16, 48])
def test_what_pytorch_counts_in_the_package(frames):
    require_reference()
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from m2l_jax.torch_weights.reference import reference_network

    bins = CONFIG.spectrogram.bins
    counted = {}

    def count(name, function, *inputs):
        with FlopCounterMode(display=False) as counter:
            result = function(*inputs)
        counted[name] = counter.get_total_flops() // 2
        return result

    # The counter does not know the CPU's own attention: let it be products of matrices.
    with reference_network(CONFIG) as network, sdpa_kernel(SDPBackend.MATH):
        network.train()
        spectrogram = torch.randn(1, 2, bins, frames)
        latents = count('encoder', network.encoder, spectrogram)
        pyramid = count('decoder', network.decoder, latents)
        count('unet', network, latents, spectrogram, 1.0, pyramid)
    assert counted == operations.forward(CONFIG, frames)
