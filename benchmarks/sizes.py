"""The model that a benchmark runs: the released one's sizes, or a small one to try it out."""

from absl import flags

from benchmarks import small_model
from m2l_jax.model.config import ModelConfig

_CONFIGS = {'full': ModelConfig(), 'small': small_model.CONFIG}


def define_size() -> flags.FlagHolder:
    """The flag `--model=full` or `small`."""
    return flags.DEFINE_enum('model', 'full', list(_CONFIGS), "The released model's sizes, or few.")


def model_config(size: str) -> ModelConfig:
    """The config of one."""
    return _CONFIGS[size]
