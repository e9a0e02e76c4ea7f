"""The paper's recipe on a Cloud TPU v6e slice; the argument is the slice, v6e-4 by default.

    python -m m2l_jax.train --config=configs/tpu_v6e.py --config.data.path=MUSIC --workdir=DIR
    NAME=my-tpu ZONE=… TYPE=v6e-16 VERSION=v2-alpha-tpuv6e \
        launch/tpu_vm.sh keep --config=configs/tpu_v6e.py:v6e-16 …

| slice | chips | crops a step | a chip | memory needed a chip | learning rate | steps | hours |
|---|---|---|---|---|---|---|---|
| v6e-4 | 4 | 32 | 8 | 7.5 of 34.4 GB | 1.4e-4 | 400,000 | 6.0 |
| v6e-16 | 16 | 128 | 8 | 7.5 of 34.4 GB | 2.8e-4 | 100,000 | 1.5 |
| v6e-256 | 256 | 2,048 | 8 | 7.5 of 34.4 GB | 1.1e-3 | 50,000 | 0.8 |

Memory, and the time of a step that the hours are made of, but for an all-reduce over a single ring,
are the compiler's (52 ms; `python -m
m2l_jax.compile`); no run on a TPU has confirmed them. `docs/scaling.md` has the reasons.
"""

from ml_collections import ConfigDict

from configs import default, scaling


def get_config(slice_name: str = 'v6e-4') -> ConfigDict:
    """The default recipe scaled to the slice, which makes the spectrograms itself.

    Eight crops a chip, as in `tpu_v4.py`.
    """
    config = default.get_config()
    scaling.scale(config, scaling.chips_of(slice_name, 'v6e', 1), crops_per_device=8)
    config.data.representation = 'waveform'
    config.data.workers = 64
    return config
