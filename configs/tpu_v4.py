"""The paper's recipe on a Cloud TPU v4 slice; the argument is the slice, v4-8 by default.

    python -m m2l_jax.train --config=configs/tpu_v4.py --config.data.path=MUSIC --workdir=DIR
    NAME=my-tpu ZONE=… TYPE=v4-32 launch/tpu_vm.sh keep --config=configs/tpu_v4.py:v4-32 …

| slice | chips | crops a step | a chip | memory needed a chip | learning rate | steps | hours |
|---|---|---|---|---|---|---|---|
| v4-8 | 4 | 32 | 8 | 8.6 of 34.4 GB | 1.4e-4 | 400,000 | 11.3 |
| v4-32 | 16 | 128 | 8 | 8.6 of 34.4 GB | 2.8e-4 | 100,000 | 2.8 |
| v4-512 | 256 | 2,048 | 8 | 8.6 of 34.4 GB | 1.1e-3 | 50,000 | 1.4 |

Memory and the 98 ms of a step are the compiler's (`python -m m2l_jax.compile`); the hours add an
all-reduce over a single ring. No run on a TPU has confirmed them. Reasons: `docs/scaling.md`.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import scaling


def get_config(slice_name: str = 'v4-8') -> ConfigDict:
    """The default recipe, scaled to the slice."""
    return scaling.for_tpu(slice_name, 'v4')
