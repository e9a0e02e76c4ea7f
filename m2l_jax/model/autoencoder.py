"""Music2Latent as one module: the only one that the rest of the project applies."""

import types
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from m2l_jax.interface.errors import InputError
from m2l_jax.model import ops
from m2l_jax.model.config import ModelConfig
from m2l_jax.model.decoder import Decoder
from m2l_jax.model.encoder import Encoder
from m2l_jax.model.unet import ConsistencyUNet

Params = dict  # the nested dictionary of arrays under `variables['params']`

# Parts of the parameters that training keeps as they are, by the name that a config chooses.
FROZEN: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {'': (), 'encoder': ('encoder',), 'decoder': ('decoder', 'unet')}
)


class Music2Latent(nn.Module):
    """The consistency autoencoder of Pasini, Lattner & Fazekas 2024 (arXiv 2408.06500).

    Sizes in the methods below are those of the default config. Use as a pure function:
    `model.apply({'params': params}, spectrogram, method='encode')`.

    Rows of different lengths share a batch: `lengths` `[B]` are in latent vectors; None takes all
    rows as long as the array. Outputs within `lengths` don't depend on padding of finite numbers;
    beyond it they are undefined.

    `kernels`, see `ops`, are 'xla' or, for programs that run on such devices alone, one of others.
    The codec and the trainer choose them by their devices, whatever the model was made with.
    """

    config: ModelConfig = ModelConfig()
    kernels: str = 'xla'

    def setup(self):
        if self.kernels not in ops.KERNELS:
            raise InputError(f'kernels={self.kernels!r} must be one of {", ".join(ops.KERNELS)}')
        self.encoder = Encoder(self.config, self.kernels)
        self.decoder = Decoder(self.config, self.kernels)
        self.unet = ConsistencyUNet(self.config, self.kernels)

    def encode(self, spectrogram: jax.Array, lengths: ops.Lengths = None) -> jax.Array:
        """Spectrogram `[B, 1024, T, 2]` to latents `[B, T/8, 64]`, float32 in [-1, 1].

        Raises:
          InputError: if T is not a multiple of 8 or the bins are not the config's.
        """
        self._check(spectrogram)
        return self.encoder(spectrogram, lengths).astype(jnp.float32)

    def features(self, spectrogram: jax.Array, lengths: ops.Lengths = None) -> jax.Array:
        """Spectrogram `[B, 1024, T, 2]` to the features before the bottleneck, `[B, T/8, 8192]`."""
        self._check(spectrogram)
        return self.encoder.features(spectrogram, lengths).astype(jnp.float32)

    def pyramid(self, latents: jax.Array, lengths: ops.Lengths = None) -> tuple[jax.Array, ...]:
        """Latents `[B, T/8, 64]` to the conditioning of each level, `[B, 1024, T, 64]` first."""
        return self.decoder(latents, lengths)

    def denoise(
        self,
        noisy: jax.Array,
        sigma: jax.Array,
        pyramid: Sequence[jax.Array],
        lengths: ops.Lengths = None,
    ) -> jax.Array:
        """Noisy spectrogram `[B, 1024, T, 2]` at levels `sigma` `[B]` to a clean one, float32."""
        return self.unet(noisy, sigma, pyramid, lengths)

    def __call__(self, spectrogram: jax.Array, noisy: jax.Array, sigma: jax.Array) -> jax.Array:
        """Encodes `spectrogram` and denoises `noisy` with the latents; touches every parameter."""
        return self.denoise(noisy, sigma, self.pyramid(self.encode(spectrogram)))

    def init_params(self, key: jax.Array) -> Params:
        """Random parameters."""
        config = self.config
        bins, frames = config.spectrogram.bins, config.time_downsampling
        spectrogram = jnp.zeros((1, bins, frames, config.channels))
        return self.init(key, spectrogram, spectrogram, jnp.ones((1,)))['params']

    def _check(self, spectrogram: jax.Array) -> None:
        bins, multiple = self.config.spectrogram.bins, self.config.time_downsampling
        shape, channels = spectrogram.shape, self.config.channels
        if len(shape) != 4 or (shape[1], shape[3]) != (bins, channels) or shape[2] % multiple:
            raise InputError(
                f'spectrogram has shape {shape}; it must be [batch, {bins}, frames, {channels}] '
                f'with frames a multiple of {multiple}'
            )
