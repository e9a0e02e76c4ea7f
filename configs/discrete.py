"""A small model that gives continuous latents and tokens; the argument is the steps.

    python -m m2l_jax.train --config=configs/discrete.py --config.data.path=MUSIC --workdir=DIR
    python -m m2l_jax.encode --checkpoint=DIR --input=MUSIC --output=tokens --tokens

13,014,210 parameters, as the bottleneck has none. Finite scalar quantisation (Mentzer et al. 2023,
arXiv 2309.15505) rounds each of the 64 numbers of a latent vector to 11 levels, 2.38 kbit/s at
44,100 Hz. A quarter of the crops train on rounded latents, the others on latents as they are, as
CoDiCodec describes: one model decodes both.

All else is the recipe of `configs/small.py`, as rounding changes no size and no schedule.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import small


def get_config(steps: str = '30000') -> ConfigDict:
    """The recipe for short trainings with finite scalar quantisation."""
    config = small.get_config(steps)
    config.model.update(bottleneck='fsq', levels=11)
    config.consistency.unquantised = 0.75
    return config
