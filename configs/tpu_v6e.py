"""The paper's recipe on a Cloud TPU v6e slice; the argument is the slice, v6e-4 by default.

    python -m m2l_jax.train --config=configs/tpu_v6e.py --config.data.path=MUSIC --workdir=DIR
    NAME=my-tpu ZONE=… TYPE=v6e-16 VERSION=v2-alpha-tpuv6e \
        launch/tpu_vm.sh keep --config=configs/tpu_v6e.py:v6e-16 …

| slice | chips | crops a step | a chip | memory needed a chip | learning rate | steps | hours |
|---|---|---|---|---|---|---|---|
| v6e-4 | 4 | 32 | 8 | 7.5 of 34.4 GB | 1.4e-4 | 400,000 | 6.0 |
| v6e-16 | 16 | 128 | 8 | 7.5 of 34.4 GB | 2.8e-4 | 100,000 | 1.5 |
| v6e-256 | 256 | 2,048 | 8 | 7.5 of 34.4 GB | 1.1e-3 | 50,000 | 0.8 |

Memory and the 52 ms of a step are the compiler's (`python -m m2l_jax.compile`); the hours add an
all-reduce over a single ring. No run on a TPU has confirmed them. Reasons: `docs/scaling.md`.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import scaling


def get_config(slice_name: str = 'v6e-4') -> ConfigDict:
    """The default recipe, scaled to the slice."""
    return scaling.for_tpu(slice_name, 'v6e')
