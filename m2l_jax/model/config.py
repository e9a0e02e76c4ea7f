"""Sizes of a Music2Latent model. A smaller model is another config, never another class."""

import dataclasses
import itertools
import math
from typing import Any

from m2l_jax.audio.planes import MONO, PARTS, STEREO
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.consistency.noise import NoiseLevels
from m2l_jax.interface.errors import InputError
from m2l_jax.model.bottleneck import BOTTLENECKS

# With the same parameters, these change results only by rounding, or not at all.
_NOT_DEFINING = ('dtype', 'param_dtype', 'remat', 'latents_of')
# Older versions refuse fields that they don't know: files hold these only where they are set.
_NOT_ALWAYS_RECORDED = (
    'bottleneck',
    'levels',
    'latent_scale',
    'channels',
    'stereo',
    'frequency_scaling',
    'cross_connections',
    'latents_of',
)
_DTYPES = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and precision; the defaults are the released model's (57,658,690 parameters).

    Levels are numbered from 0 (full resolution) to the deepest. Tuples have one entry for each
    level; `downsampling` has one for each step from a level to the next.

    Attributes:
      base_channels: channels of level 0.
      channel_multipliers: channels of each level over `base_channels`.
      downsampling: (frequency, time) factor of each step to the next level.
      attention: levels whose residual blocks end in frequency attention.
      attention_heads: heads of each attention layer.
      encoder_blocks: residual blocks of each level of the encoder.
      decoder_blocks: the same of the decoder.
      unet_blocks: the same of the UNet.
      bottleneck_channels: of the stack over time between features and latents.
      bottleneck_blocks: residual blocks of that stack.
      bottleneck: name in `bottleneck.BOTTLENECKS` of the map from the encoder's outputs to latents:
        'tanh' for continuous ones; 'fsq' for a model whose latents may be rounded to tokens too.
      levels: values of a token, at most 256; of 'fsq' alone.
      latent_channels: numbers in a latent vector.
      latent_scale: latents in files and for users are those of the model divided by it, for unit
        variance: the standard deviation of the released model's latents on music.
      channels: planes of the spectrogram, real and imaginary part of each audio channel: 2 for
        mono, 4 for one latent sequence of both channels of stereo.
      stereo: 'left_right' or 'mid_side', the audio channels of 4 planes; see `audio.planes`.
      embedding_channels: width of the noise-level embedding and of the layers fed by it.
      frequency_scaling: a gain of each frequency bin, learnt in the encoder and, in the UNet, given
        by the noise level; False leaves it out.
      cross_connections: the decoder's outputs of all levels go into the UNet's blocks; False leaves
        that of level 0 alone, which the UNet's first block takes.
      dtype: of the computation; statistics, softmax and loss stay float32.
      param_dtype: of the parameters.
      remat: recompute the inside of residual blocks in the backward pass, a third more work, to
        save memory.
      spectrogram: the audio representation.
      noise: the range of noise levels.
      latents_of: ids of other models with the same encoder, see `EncoderDecoder.model_id`, whose
        latents this one decodes; training with a frozen encoder notes them.
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
    bottleneck: str = 'tanh'
    levels: int = 11
    latent_channels: int = 64
    latent_scale: float = 0.06
    channels: int = 2
    stereo: str = STEREO[0]
    embedding_channels: int = 256
    frequency_scaling: bool = True
    cross_connections: bool = True
    dtype: str = 'float32'
    param_dtype: str = 'float32'
    remat: bool = False
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    noise: NoiseLevels = NoiseLevels()
    latents_of: tuple[str, ...] = ()

    def __post_init__(self):
        levels = len(self.channel_multipliers)
        if len(self.attention) != levels or len(self.downsampling) != levels - 1:
            raise InputError(
                f'model.attention needs {levels} entries and model.downsampling {levels - 1}, '
                'as model.channel_multipliers has them'
            )
        choices = {
            'dtype': _DTYPES,
            'param_dtype': _DTYPES,
            'bottleneck': BOTTLENECKS,
            'stereo': STEREO,
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise InputError(f'model.{name}={value!r} must be one of {", ".join(known)}')
        self._check_sizes()
        self._check_family()
        for width in (*self.widths, self.bottleneck_channels):
            if width < 4 or width % min(width // 4, 32):
                raise InputError(
                    f'{width} channels, of model.base_channels={self.base_channels} or '
                    'model.bottleneck_channels, do not split into groups of 4 or into 32 groups'
                )
        for width, attends in zip(self.widths, self.attention, strict=True):
            if attends and width % self.attention_heads:
                raise InputError(
                    f'model.attention_heads={self.attention_heads} does not divide the '
                    f'{width} channels of a level with attention'
                )
        shrinking = math.prod(frequency for frequency, _ in self.downsampling)
        if self.spectrogram.bins % shrinking:
            raise InputError(
                f'model.downsampling divides frequency by {shrinking}, which does not divide the '
                f'{self.spectrogram.bins} bins of model.spectrogram'
            )

    def _check_sizes(self):
        for field in dataclasses.fields(self):
            if field.type is int and (value := getattr(self, field.name)) < 1:
                raise InputError(f'model.{field.name}={value} must be at least 1')
        if not 0 < self.latent_scale < math.inf:
            raise InputError(f'model.latent_scale={self.latent_scale} must be above 0 and finite')
        if self.embedding_channels < 4 or self.embedding_channels % 2:
            raise InputError(
                f'model.embedding_channels={self.embedding_channels} must be even and at least 4'
            )
        for factor in itertools.chain(*self.downsampling):
            if factor < 1 or (factor > 1 and factor % 2):
                raise InputError(f'model.downsampling has the factor {factor}: use 1 or even ones')

    def _check_family(self):
        if not 2 <= self.levels <= 256:
            raise InputError(f'model.levels={self.levels} must be from 2 to 256')
        if not self.is_discrete and self.levels != ModelConfig.levels:
            raise InputError(
                f"model.levels={self.levels} needs model.bottleneck='fsq': "
                f'{self.bottleneck!r} has no levels'
            )
        if self.channels not in (PARTS, 2 * PARTS):
            raise InputError(
                f'model.channels={self.channels} counts planes, real and imaginary part of each '
                f'audio channel: {PARTS} for mono or {2 * PARTS} for stereo'
            )
        if self.channels == PARTS and self.stereo != ModelConfig.stereo:
            raise InputError(
                f'model.stereo={self.stereo!r} is for stereo: set model.channels={2 * PARTS} too'
            )

    @property
    def defining(self) -> 'ModelConfig':
        """Copy with the defaults in the fields that change only precision, time and memory."""
        defaults = {name: getattr(ModelConfig, name) for name in _NOT_DEFINING}
        return dataclasses.replace(self, **defaults)

    def record(self) -> dict[str, Any]:
        """Fields as files hold them, for JSON."""
        fields = dataclasses.asdict(self)
        for name in _NOT_ALWAYS_RECORDED:
            if fields[name] == getattr(ModelConfig, name):
                del fields[name]
        return fields | {'levels': self.levels} if self.is_discrete else fields

    @property
    def is_discrete(self) -> bool:
        """True if the latents may be rounded to tokens."""
        return self.bottleneck == 'fsq'

    @property
    def audio_channels(self) -> int:
        """Audio channels that share a latent sequence: 1 or 2."""
        return self.channels // PARTS

    @property
    def layout(self) -> str:
        """Audio channels of the planes, as `audio.planes` names them."""
        return MONO if self.audio_channels == 1 else self.stereo

    def waveform_shape(self, samples: Any) -> tuple[Any, ...]:
        """Shape of the audio of a latent sequence: `(N,)` of mono, `(2, N)` of stereo."""
        return (samples,) if self.layout == MONO else (self.audio_channels, samples)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base_channels * multiplier for multiplier in self.channel_multipliers)

    @property
    def time_downsampling(self) -> int:
        """Spectrogram frames for each latent vector; the model takes multiples of it."""
        return math.prod(time for _, time in self.downsampling)

    def frames_of(self, lengths: Any) -> list[Any]:
        """Frames of each level for `lengths` latent vectors, an array; a None for each if None."""
        if lengths is None:
            return [None] * len(self.widths)
        times = [time for _, time in self.downsampling]
        return [lengths * math.prod(times[level:]) for level in range(len(self.widths))]

    @property
    def samples_per_latent(self) -> int:
        """Audio samples from one latent vector to the next."""
        return self.time_downsampling * self.spectrogram.hop

    @property
    def deepest_bins(self) -> int:
        """Frequency bins of the deepest level."""
        return self.spectrogram.bins // math.prod(frequency for frequency, _ in self.downsampling)

    @property
    def feature_channels(self) -> int:
        """Channels of `features`: the deepest level with its bins folded into its channels."""
        return self.widths[-1] * self.deepest_bins
