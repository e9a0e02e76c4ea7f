"""A small joint-stereo model: one latent sequence of both channels; the argument is the steps.

    python -m m2l_jax.train --config=configs/stereo.py --config.data.path=MUSIC --workdir=DIR
    python -m m2l_jax.train --config=configs/stereo.py:20000 --config.model.stereo=mid_side …

The recipe of `configs/small.py`, whose docstring has hardware and hours, with four planes, real and
imaginary part of left and right: only the first and last layers are wider. 64 numbers stand for
4096 samples of both channels, half as many as two sequences of a mono model. Mono files are taken
for both sides, and files of more than two channels are skipped with a line in the log.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import small


def get_config(steps: str = '30000') -> ConfigDict:
    """The recipe of short trainings for the planes of two audio channels."""
    config = small.get_config(steps)
    config.model.channels = 4  # planes: real and imaginary part of two audio channels
    config.model.stereo = 'left_right'  # or mid_side
    return config
