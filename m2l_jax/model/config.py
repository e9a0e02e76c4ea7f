"""The sizes of a Music2Latent model: a smaller model is another config, never another class."""

import dataclasses
from typing import Any

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.consistency.noise import NoiseLevels
from m2l_jax.interface.errors import InputError

# Of the same parameters they make the same numbers, but for rounding.
_NOT_DEFINING = ('dtype', 'param_dtype', 'remat')
_DTYPES = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and precision; the defaults are the released model's (57,658,690 parameters).

    Levels are numbered from 0 (full resolution) to the deepest; tuples have an entry a level, or,
    for the downsampling, one for each passage from a level to the next.

    Attributes:
      base_channels: channels of level 0.
      channel_multipliers: channels of each level over `base_channels`.
      downsampling: (frequency, time) factor of each passage to the next level.
      attention: whether a level's residual blocks end in frequency attention.
      attention_heads: heads of each attention layer.
      encoder_blocks, decoder_blocks, unet_blocks: residual blocks a level.
      bottleneck_channels, bottleneck_blocks: the stack over time between features and latents.
      latent_channels: numbers in a latent vector.
      embedding_channels: width of the noise-level embedding and of the layers fed by it.
      dtype: of the computation; statistics, softmax and loss stay float32.
      param_dtype: of the parameters.
      remat: whether training computes the inside of each residual block anew in the backward pass,
        a third more work, instead of keeping it in memory.
      spectrogram: the audio representation.
      noise: the range of noise levels.
    """

    base_channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4, 4)
    downsampling: tuple[tuple[int, int], ...] = ((4, 1), (2, 2), (2, 2), (2, 2))
    attention: tuple[bool, ...] = (False, False, True, True, True)
    attention_heads: int = 4
    encoder_blocks: int = 1
    decoder_blocks: int = 1
    unet_blocks: int = 2
    bottleneck_channels: int = 512
    bottleneck_blocks: int = 4
    latent_channels: int = 64
    embedding_channels: int = 256
    dtype: str = 'float32'
    param_dtype: str = 'float32'
    remat: bool = False
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    noise: NoiseLevels = NoiseLevels()

    def __post_init__(self):
        levels = len(self.channel_multipliers)
        if len(self.attention) != levels or len(self.downsampling) != levels - 1:
            raise InputError(
                f'model.attention needs {levels} entries and model.downsampling {levels - 1}, '
                'as model.channel_multipliers has them'
            )
        for name in ('dtype', 'param_dtype'):
            if getattr(self, name) not in _DTYPES:
                raise InputError(
                    f'model.{name}={getattr(self, name)!r} must be one of {", ".join(_DTYPES)}'
                )
        self._check_sizes()
        for channels in (*self.channels, self.bottleneck_channels):
            groups = min(channels // 4, 32)
            if not groups or channels % groups:
                raise InputError(
                    f'{channels} channels, of model.base_channels={self.base_channels} or '
                    'model.bottleneck_channels, do not split into groups of 4 or into 32 groups'
                )
        for channels, attends in zip(self.channels, self.attention, strict=True):
            if attends and channels % self.attention_heads:
                raise InputError(
                    f'model.attention_heads={self.attention_heads} does not divide the '
                    f'{channels} channels of a level with attention'
                )
        if self.spectrogram.bins % self.frequency_downsampling:
            raise InputError(
                f'model.downsampling divides frequency by {self.frequency_downsampling}, '
                f'which does not divide the {self.spectrogram.bins} bins of model.spectrogram'
            )

    def _check_sizes(self):
        for name in (
            'base_channels',
            'attention_heads',
            'encoder_blocks',
            'decoder_blocks',
            'unet_blocks',
            'bottleneck_channels',
            'bottleneck_blocks',
            'latent_channels',
        ):
            if getattr(self, name) < 1:
                raise InputError(f'model.{name}={getattr(self, name)} must be at least 1')
        if self.embedding_channels < 4 or self.embedding_channels % 2:
            raise InputError(
                f'model.embedding_channels={self.embedding_channels} must be even and at least 4'
            )
        for factor in (factor for factors in self.downsampling for factor in factors):
            if factor < 1 or (factor > 1 and factor % 2):
                raise InputError(f'model.downsampling has the factor {factor}: use 1 or even ones')

    @property
    def defining(self) -> 'ModelConfig':
        """The same, with the defaults for what only precision, time and memory depend on."""
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(self)
            if field.name in _NOT_DEFINING
        }
        return dataclasses.replace(self, **defaults)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base_channels * multiplier for multiplier in self.channel_multipliers)

    @property
    def frequency_downsampling(self) -> int:
        """Bins of level 0 over those of the deepest level."""
        return _product(frequency for frequency, _ in self.downsampling)

    @property
    def time_downsampling(self) -> int:
        """Spectrogram frames to a latent vector; frames fed to the model are a multiple of it."""
        return _product(time for _, time in self.downsampling)

    def frames_of(self, lengths: Any) -> list[Any]:
        """Frames of each level that so many latent vectors, an array, stand for; or a None each."""
        if lengths is None:
            return [None] * len(self.channels)
        times = [time for _, time in self.downsampling]
        return [lengths * _product(times[level:]) for level in range(len(self.channels))]

    @property
    def samples_per_latent(self) -> int:
        """Audio samples from one latent vector to the next."""
        return self.time_downsampling * self.spectrogram.hop

    @property
    def deepest_bins(self) -> int:
        """Frequency bins of the deepest level."""
        return self.spectrogram.bins // self.frequency_downsampling

    @property
    def feature_channels(self) -> int:
        """Channels of `features`: the deepest level with its bins folded into its channels."""
        return self.channels[-1] * self.deepest_bins


def _product(factors) -> int:
    result = 1
    for factor in factors:
        result *= factor
    return result
