"""The recipe at a higher compression: 8192 or 16384 samples a latent vector instead of 4096.

    python -m m2l_jax.train --config=configs/compression.py:8192 \\
        --config.data.path=MUSIC --workdir=DIR
    python -m m2l_jax.train --config=configs/compression.py:16384,small:20000 …

| argument | latent vectors a second | numbers a second | parameters |
|---|---|---|---|
| `4096` | 10.77 | 689 | 57,658,690 |
| `8192` | 5.38 | 345 | 65,016,642 |
| `16384` | 2.69 | 172 | 74,473,794 |

Each doubling is one more level that halves frequency and time, with attention, as those before: a
latent vector keeps its 64 numbers and spans more time. Fewer numbers in a vector would cost less,
but leave a model of these latents as long a sequence. Crops are multiples of 16 or 32 frames.
`,small` or `,overfit` takes these configs instead of the paper's recipe.
"""

import functools

from ml_collections import ConfigDict

from m2l_jax.configs import variants


def get_config(argument: str = '8192') -> ConfigDict:
    """The recipe at the compression that the argument names."""
    return variants.vary(_CHANGES, argument)


def _add_levels(config: ConfigDict, levels: int) -> None:
    """Adds levels below the deepest, of as many channels and twice as coarse."""
    model = config.model
    model.channel_multipliers += model.channel_multipliers[-1:] * levels
    model.downsampling += ((2, 2),) * levels
    model.attention += (True,) * levels
    config.data.crop_frames = max(config.data.crop_frames, 8 << levels)


_CHANGES = {
    str(4096 << levels): functools.partial(_add_levels, levels=levels) for levels in range(3)
}
