"""The paper's recipe on H100s or H200s; the argument is their number, 1 by default.

    python -m m2l_jax.train --config=configs/gpu.py --config.data.path=MUSIC --workdir=DIR
    launch/local_multi_gpu.sh --config=configs/gpu.py:8 --config.data.path=MUSIC --workdir=DIR

| GPUs | crops a step | a GPU | learning rate | steps | hours, at a third of the peak rate |
|---|---|---|---|---|---|
| 1 | 16 | 16 | 1.0e-4 | 800,000 | 11 |
| 8 | 128 | 16 | 2.8e-4 | 100,000 | 1.3 |

The hours are arithmetic, 0.98 TFLOP a crop at 989 TFLOP/s of bfloat16, not a measurement. On a TPU
a crop takes 0.9 GB, so that 16 should be at home in 80 GB.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import default, scaling
from m2l_jax.interface.errors import InputError


def get_config(gpus: str = '1') -> ConfigDict:
    """The default recipe scaled to the GPUs, which make the spectrograms themselves."""
    if not gpus.isdecimal() or not int(gpus):
        raise InputError(f'{gpus!r} is no number of GPUs: use e.g. configs/gpu.py:8')
    config = default.get_config()
    scaling.scale(config, int(gpus), crops_per_device=16)
    config.data.representation = 'waveform'
    config.data.workers = 16 * min(int(gpus), 8)  # a process, which may drive a machine's GPUs
    return config
