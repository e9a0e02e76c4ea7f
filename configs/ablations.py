"""The recipe without one of its parts; the argument names the part.

    python -m m2l_jax.train --config=configs/ablations.py:no_cross_connections \\
        --config.data.path=MUSIC --workdir=DIR
    python -m m2l_jax.train --config=configs/ablations.py:no_cross_connections,small:20000 …

| argument | parameters | change |
|---|---|---|
| `base` | 57,658,690 | none |
| `no_frequency_attention` | 52,912,450 | no block ends in attention over frequency |
| `no_frequency_scaling` | 56,868,162 | no gains by frequency, of the encoder or the MLPs |
| `no_cross_connections` | 56,786,498 | the UNet's first block alone gets latents |
| `discrete_schedule` | 57,658,690 | noise levels on a grid, of 10 steps doubled up to 1,000 |
| `uniform_density` | 57,658,690 | all noise indices are equally likely |

`,small` or `,overfit` takes these configs instead of the paper's recipe, for less time. What short
trainings showed: docs/evaluation.md.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import variants


def get_config(argument: str = 'base') -> ConfigDict:
    """The recipe without the named part."""
    return variants.vary(_CHANGES, argument)


def _no_frequency_attention(config: ConfigDict) -> None:
    config.model.attention = (False,) * len(config.model.attention)


def _no_frequency_scaling(config: ConfigDict) -> None:
    config.model.frequency_scaling = False


def _no_cross_connections(config: ConfigDict) -> None:
    config.model.cross_connections = False


def _discrete_schedule(config: ConfigDict) -> None:
    schedule = config.consistency.schedule
    start, end = (round(10**each) for each in (schedule.start_exponent, schedule.end_exponent))
    config.consistency.schedule = ConfigDict(
        {'name': 'discrete', 'start_steps': start, 'end_steps': end}  # Δ of the same range
    )


def _uniform_density(config: ConfigDict) -> None:
    config.consistency.density = ConfigDict({'name': 'uniform'})


_CHANGES = {
    'base': lambda config: None,
    'no_frequency_attention': _no_frequency_attention,
    'no_frequency_scaling': _no_frequency_scaling,
    'no_cross_connections': _no_cross_connections,
    'discrete_schedule': _discrete_schedule,
    'uniform_density': _uniform_density,
}
