"""The layout of the PyTorch trainer's checkpoints.

`gen_state_dict` names its tensors. `ema_state_dict`, of the package torch_ema, and
`optimizer_state_dict`, of PyTorch's RAdam, number theirs in the order of the model's parameters.
"""

import dataclasses
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.pickles import to_float32
from m2l_jax.torch_weights.state_dict import StateDict

TENSORS = 'gen_state_dict'
OPTIMIZER = 'optimizer_state_dict'
_AVERAGE = 'ema_state_dict'
_ITERATION = 'it'
_SHADOW = 'shadow_params'
_FIRST, _SECOND = 'exp_avg', 'exp_avg_sq'

# Order in which each of the package's modules registers its parts.
_PARTS = (
    *('encoder', 'decoder', 'gain', 'emb_proj', 'scale_inp', 'scale_out', 'conv_inp'),
    *('prenorm_1d_to_2d', 'conv_decoded', 'conv_out_bottleneck', 'bottleneck_layers'),
    *('norm_out', 'conv_out', 'down_layers', 'up_layers'),
    *('conv1', 'conv2', 'res_conv', 'norm1', 'norm2', 'proj_emb', 'att', 'mha', 'norm', 'c'),
    *('in_proj_weight', 'in_proj_bias', 'out_proj', 'scale', 'weight', 'bias'),
)
# Of one group of PyTorch's RAdam, in any version. AdamW's has `amsgrad`, NAdam's `momentum_decay`.
_RADAM = {
    *('lr', 'betas', 'eps', 'weight_decay', 'params', 'param_names', 'initial_lr', 'maximize'),
    *('foreach', 'capturable', 'differentiable', 'decoupled_weight_decay'),
}
_FIXED = {'eps': 1e-8, 'weight_decay': 0, 'maximize': False}  # what this project's RAdam has
_MOST_ITERATIONS = (1 << 31) - 1
_ITERATIONS_AN_EPOCH = 10_000  # of the trainer, by default
_NO_SCORE = 1e7  # the trainer's first


@dataclasses.dataclass(frozen=True)
class Moments:
    """RAdam's state: number of updates, decay rates, and both moments of each tensor by name."""

    updates: int
    b1: float
    b2: float
    first: StateDict
    second: StateDict


@dataclasses.dataclass(frozen=True)
class Average:
    """The moving average: decay, number of updates (None: not counted), and tensors by name."""

    decay: float
    updates: int | None
    tensors: StateDict


def in_order(names: Iterable[str]) -> list[str]:
    """Names of tensors in the order of the PyTorch model's `parameters()`."""
    ranks = {part: rank for rank, part in enumerate(_PARTS)}

    def place(name: str) -> list[int]:
        parts = name.split('.')
        return [int(part) if part.isdigit() else ranks.get(part, len(ranks)) for part in parts]

    return sorted(names, key=place)


def has_average(content: Any) -> bool:
    """True for a checkpoint with averaged parameters."""
    return isinstance(content, Mapping) and content.get(_AVERAGE) is not None


def read_average(content: Mapping[str, Any]) -> Average:
    """The averaged parameters, named as `gen_state_dict` names its tensors.

    Raises:
      InputError: if there is not one for each tensor, in its shape.
    """
    average = content.get(_AVERAGE)
    shadow = average.get(_SHADOW) if isinstance(average, Mapping) else None
    if not isinstance(shadow, Sequence):
        raise InputError(
            f'there is no list {_AVERAGE}.{_SHADOW}: only runs with the average of torch_ema, as '
            'the trainer has by default, are read'
        )
    decay, updates = average.get('decay'), average.get('num_updates')
    if not isinstance(decay, numbers.Real) or not 0 <= decay < 1:
        raise InputError(f'{_AVERAGE}.decay is {decay!r}, not from 0 to below 1')
    if updates is not None:
        updates = _whole_number(updates, f'{_AVERAGE}.num_updates')
    tensors = _by_name(content[TENSORS], dict(enumerate(shadow)), f'{_AVERAGE}.{_SHADOW}')
    return Average(float(decay), updates, tensors)


def read_iteration(content: Mapping[str, Any]) -> int:
    """The number of iterations done.

    Raises:
      InputError: if there is none.
    """
    if _ITERATION not in content:
        raise InputError(f'there is an {OPTIMIZER} and no {_ITERATION!r}, the number of iterations')
    return _whole_number(content[_ITERATION], repr(_ITERATION))


def read_moments(content: Mapping[str, Any], unused: Collection[str]) -> Moments:
    """RAdam's state; `unused` are tensors without gradients, which have none.

    Raises:
      InputError: for another optimiser, or moments that are not one for each tensor.
    """
    tensors, optimizer = content[TENSORS], content[OPTIMIZER]
    group = _only_group(optimizer, len(tensors))
    # As PyTorch has it, an empty state is none.
    states = {number: state for number, state in optimizer['state'].items() if state != {}}
    if not states:  # saved before the first update
        zeros = {
            name: np.zeros(tuple(tensor.shape), np.float32) for name, tensor in tensors.items()
        }
        return Moments(0, *group['betas'], zeros, zeros)
    keys = ('step', _FIRST, _SECOND)
    for number, state in states.items():
        if not isinstance(state, Mapping) or set(state) != set(keys):
            found = ', '.join(map(str, state)) if isinstance(state, Mapping) else repr(state)
            raise InputError(
                f'{OPTIMIZER} has {found} of tensor {number}, and RAdam {", ".join(keys)}'
            )
    moments = [
        _by_name(
            tensors,
            {number: state[key] for number, state in states.items()},
            f'{OPTIMIZER}.{key}',
            unused,
        )
        for key in (_FIRST, _SECOND)
    ]
    updates = {_whole_number(state['step'], f'{OPTIMIZER}.step') for state in states.values()}
    if len(updates) > 1:
        raise InputError(
            f'{OPTIMIZER} counts from {min(updates)} to {max(updates)} updates: tensors that were '
            'frozen for a while have no counterpart here'
        )
    return Moments(updates.pop(), *group['betas'], *moments)


def left_out(content: Mapping[str, Any]) -> list[str]:
    """Keys of a checkpoint that this project has no use for, such as the scale of gradients."""
    used = (TENSORS, OPTIMIZER, _AVERAGE, _ITERATION)
    return [key for key in map(str, content) if key not in used and not key.startswith('m2l_jax_')]


def pack(
    average: Mapping[str, np.ndarray],
    moments: Moments,
    iteration: int,
    learning_rate: float,
    decay: float,
) -> dict[str, Any]:
    """The content of a checkpoint beside `gen_state_dict`, with tensors in the same order.

    Moments leave out tensors without gradients. The trainer goes on from an epoch of its default
    length, and takes any score for its best. The scale of gradients is PyTorch's first one.
    """
    import torch

    names = in_order(average)
    stand_ins = [torch.nn.Parameter(torch.zeros(())) for _ in names]
    radam = torch.optim.RAdam(stand_ins, lr=learning_rate, betas=(moments.b1, moments.b2))
    states = {
        number: {
            'step': torch.tensor(float(moments.updates)),
            _FIRST: torch.from_numpy(np.array(moments.first[name])),
            _SECOND: torch.from_numpy(np.array(moments.second[name])),
        }
        for number, name in enumerate(names)
        if name in moments.first and moments.updates
    }
    return {
        OPTIMIZER: {**radam.state_dict(), 'state': states},
        _AVERAGE: {
            'decay': decay,
            'num_updates': iteration,
            _SHADOW: [torch.from_numpy(np.array(average[name])) for name in names],
            'collected_params': None,
        },
        'scaler_state_dict': {
            'scale': 65536.0,
            'growth_factor': 2.0,
            'backoff_factor': 0.5,
            'growth_interval': 2000,
            '_growth_tracker': 0,
        },
        _ITERATION: iteration,
        'epoch': iteration // _ITERATIONS_AN_EPOCH,
        'score': _NO_SCORE,
        'best_checkpoint_path': '',
    }


def _by_name(
    tensors: Mapping[str, Any], numbered: Mapping[Any, Any], what: str, unused: Collection[str] = ()
) -> StateDict:
    """Numbered tensors under the names of `tensors`, whose shapes they must have."""
    names = list(tensors)
    if names != in_order(names):
        raise InputError(
            f"the tensors of {TENSORS} are not in the order of the package's model, by which "
            f'{what} is numbered: get the file as the trainer wrote it'
        )
    expected = {number for number, name in enumerate(names) if name not in unused}
    if not expected <= numbered.keys() <= set(range(len(names))):
        raise InputError(
            f'{what} holds {len(numbered)} tensors for the {len(expected)} of {TENSORS} that are '
            'trained: all of them must be'
        )
    found = {}
    for number, tensor in sorted(numbered.items()):
        name = names[number]
        if getattr(tensor, 'is_sparse', False) or not hasattr(tensor, 'is_floating_point'):
            raise InputError(f'{what}[{number}], of {name}, is no dense tensor')
        found[name] = to_float32(tensor, f'{what}[{number}], of {name},')
        if not np.all(np.isfinite(found[name])):
            raise InputError(
                f'{what}[{number}], of {name}, holds NaN or infinity: its training diverged'
            )
        if found[name].shape != tuple(tensors[name].shape):
            raise InputError(
                f'{what}[{number}] has shape {found[name].shape} and its tensor {name} '
                f'{tuple(tensors[name].shape)}: they are of different models'
            )
    return found


def _only_group(optimizer: Any, tensors: int) -> Mapping[str, Any]:
    """The hyperparameters of all tensors."""
    groups = optimizer.get('param_groups') if isinstance(optimizer, Mapping) else None
    if not isinstance(groups, Sequence) or not isinstance(optimizer.get('state'), Mapping):
        raise InputError(f"{OPTIMIZER} is no state of PyTorch's optimisers")
    if len(groups) != 1 or not isinstance(groups[0], Mapping):
        raise InputError(f'{OPTIMIZER} has {len(groups)} groups of parameters instead of one')
    group = groups[0]
    foreign = [str(key) for key in group if key not in _RADAM]
    if foreign or not {'betas', 'eps', 'params'} <= group.keys():
        named = ', '.join(foreign) or ', '.join(map(str, group))
        raise InputError(f'{OPTIMIZER} is of another optimiser than RAdam, with {named}')
    betas = group['betas']
    if (
        not isinstance(betas, Sequence)
        or len(betas) != 2
        or not all(isinstance(b, numbers.Real) and 0 <= b < 1 for b in betas)
    ):
        raise InputError(f'{OPTIMIZER} has betas={betas}, not two numbers from 0 to below 1')
    for key, value in _FIXED.items():
        if group.get(key, value) != value:
            raise InputError(f'{OPTIMIZER} has {key}={group[key]}: only {value} has a counterpart')
    numbered = group['params']
    if not isinstance(numbered, Sequence) or list(numbered) != list(range(tensors)):
        raise InputError(
            f'{OPTIMIZER} is not of all the {tensors} tensors of {TENSORS}, in their order: all '
            'must be trained'
        )
    return group


def _whole_number(value: Any, what: str) -> int:
    value = value.item() if hasattr(value, 'item') and getattr(value, 'ndim', 1) == 0 else value
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or value != value // 1 or not 0 <= value <= _MOST_ITERATIONS:
        raise InputError(f'{what} is {value!r}, not a number of steps')
    return int(value)
