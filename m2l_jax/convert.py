"""Converts a model between this project's checkpoints and PyTorch's files, both ways.

    python -m m2l_jax.convert --from=music2latent.pt --to=DIR          an Orbax checkpoint
    python -m m2l_jax.convert --from=DIR --to=model.pt                 for the PyTorch package
    python -m m2l_jax.convert --from=DIR --to=model.safetensors        the same tensors, no pickle
    python -m m2l_jax.convert --from=DIR --to=small.safetensors --storage=float16   half the size
    python -m m2l_jax.convert --from=DIR --to=model.safetensors --sigma_rel=0.08    another average
    python -m m2l_jax.convert --from=run.pt --to=DIR                   a PyTorch trainer's run
    python -m m2l_jax.convert --from=DIR --to=run.pt --with_training_state    a run for that trainer

Of a training run the averaged parameters of the newest checkpoint are converted; a PyTorch
trainer's checkpoint to a folder whole, with parameters, average and optimiser, to go on training.
"""

from absl import flags

from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

_FROM = flags.DEFINE_string(
    'from', None, 'Folder with checkpoints, .pt or .safetensors file, hf://user/model, or small.'
)
_TO = flags.DEFINE_string('to', None, 'Folder, or .pt or .safetensors file, to write.')
_HEADS = flags.DEFINE_integer(
    'attention_heads',
    None,
    "Of a PyTorch file that this project did not write, whose shapes don't show it. Default: 4.",
    lower_bound=1,
)
_STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16'], 'Of the numbers in a .pt or .safetensors file.'
)
_MOST = command.define_finite_float(
    'most_megabytes', None, 'Write no larger .pt or .safetensors file.'
)
_SIGMA_REL = command.define_finite_float(
    'sigma_rel',
    None,
    'Post-hoc EMA, of a run with config.optimizer.ema_profiles: average over that part of it, e.g. '
    '0.08.',
)
_WHOLE = flags.DEFINE_boolean(
    'with_training_state',
    None,
    "Convert a training run whole, to go on training. Default: of a PyTorch trainer's .pt file to "
    'a folder alone.',
)
flags.mark_flags_as_required(['from', 'to'])


def main() -> None:
    """Parses the flags and converts."""
    arguments = {
        'attention_heads': _HEADS.value,
        'storage': _STORAGE.value,
        'most_bytes': None if _MOST.value is None else int(_MOST.value * 1e6),
    }
    sigma_rel, parameters = _SIGMA_REL.value, None
    if _WHOLE.value and sigma_rel is not None:
        raise InputError(f'--sigma_rel={sigma_rel} gives a model alone: leave a flag out')
    is_file = sigma_rel is None and _FROM.value.endswith('.pt')
    if _WHOLE.value or (_WHOLE.value is None and is_file):
        from m2l_jax.configs import default
        from m2l_jax.migration.runs import convert_run

        parameters = convert_run(
            _FROM.value, _TO.value, default.get_config(), demanded=bool(_WHOLE.value), **arguments
        )
    if parameters is None:
        from m2l_jax.codec.weights import convert

        parameters = convert(_FROM.value, _TO.value, sigma_rel=sigma_rel, **arguments)
    print(f'{_FROM.value} -> {_TO.value}: {parameters:,} parameters')


if __name__ == '__main__':
    command.run(main)
