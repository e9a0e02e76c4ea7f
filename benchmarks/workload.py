"""The sounds and latents that codecs are timed on, the same in every process."""

import dataclasses

import numpy as np

from m2l_jax.model.config import ModelConfig

_PARTIALS = 8


@dataclasses.dataclass(frozen=True)
class Workload:
    """Pieces of audio of the same length.

    Attributes:
      pieces: how many.
      channels: of each.
      seconds_of_a_piece: its length.
    """

    pieces: int
    channels: int
    seconds_of_a_piece: float

    @property
    def rows(self) -> int:
        """Channels of all pieces: what both codecs batch."""
        return self.pieces * self.channels

    def audio(self, config: ModelConfig) -> np.ndarray:
        """Tones that swell, in noise: `[rows, samples]`, float32."""
        random = np.random.default_rng(0)
        rate = config.spectrogram.sample_rate
        time = np.arange(round(self.seconds_of_a_piece * rate)) / rate
        audio = 0.01 * random.standard_normal((self.rows, len(time)))
        for _ in range(_PARTIALS):
            pitch, swell = random.uniform(50, 5000), random.uniform(0.5, 4)
            phases = random.uniform(0, 2 * np.pi, (2, self.rows, 1))
            tone = np.sin(2 * np.pi * pitch * time + phases[0])
            audio += 0.06 * tone * (1 + np.sin(2 * np.pi * swell * time + phases[1]))
        return audio.astype(np.float32)

    def latents(self, config: ModelConfig) -> np.ndarray:
        """Of unit variance, as music's are: `[rows, 64, frames]`, float32."""
        random = np.random.default_rng(1)
        samples = round(self.seconds_of_a_piece * config.spectrogram.sample_rate)
        frames = (samples - config.spectrogram.reach) // config.samples_per_latent
        shape = (self.rows, config.latent_channels, frames)
        return random.standard_normal(shape, np.float32)
