"""Loads models from a run, a file or a name, and converts them."""

import logging
import os
import pathlib
from typing import Any

import jax

from m2l_jax.checkpoint.averages import reconstruct_average
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import FROZEN, Music2Latent, Params
from m2l_jax.torch_weights import hub
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model
from m2l_jax.torch_weights.files import SUFFIXES
from m2l_jax.torch_weights.released import fetch_released

PACKAGED = ('small',)  # models that come with this package

_FOLDER = pathlib.Path(__file__).parents[1] / 'assets'
# Taken for a mistake, and not for the name of a folder.
_OTHER_SUFFIXES = ('.pth', '.bin', '.ckpt', '.h5', '.msgpack', '.npz', '.onnx')

_logger = logging.getLogger(__name__)


def open_weights(
    checkpoint: str | os.PathLike[str] | None, attention_heads: int | None = None
) -> tuple[Music2Latent, Params]:
    """Loads a model and its parameters; see `locate_weights` and `load_torch_model`."""
    path = locate_weights(checkpoint)
    if hub.is_address(checkpoint):
        try:
            return load_torch_model(path, attention_heads)
        except InputError as error:
            raise InputError(f'{checkpoint}: {hub.printable(str(error))}') from None
    if path.is_file() or path.suffix in SUFFIXES:
        return load_torch_model(path, attention_heads)
    from m2l_jax.checkpoint.store import load_model  # Orbax is slow to import

    return load_model(path)


def locate_weights(checkpoint: str | os.PathLike[str] | None) -> pathlib.Path:
    """Finds the path of a model, which need not exist.

    Args:
      checkpoint: a training run's folder, a converted folder, a `.pt` or a `.safetensors` file, or
        a folder with `model.safetensors`; an address in the Hub, see `hub.fetch`; a name in
        `PACKAGED`; None for the released weights, which are fetched once (CC BY-NC 4.0).

    Raises:
      InputError: if `checkpoint` is no path, the package comes without that model, one of the Hub
        cannot be fetched.
    """
    if checkpoint is None:
        return fetch_released()
    if not isinstance(checkpoint, str | os.PathLike):
        raise InputError(f'checkpoint={checkpoint!r} must be a path or a name')
    if hub.is_address(checkpoint):
        return hub.fetch(checkpoint)
    if not is_packaged(checkpoint):
        path = pathlib.Path(checkpoint)
        return path / hub.WEIGHTS if holds_weights(path) else path
    path = packaged_path(checkpoint)
    if not path.is_file():
        raise InputError(
            f'this version of m2l_jax comes without the model {checkpoint!r}: pass the folder of a '
            f'training run, or a .pt or .safetensors file; ./{checkpoint} for a folder of that name'
        )
    if os.path.exists(checkpoint):
        _logger.warning(
            '%s is the model that comes with m2l_jax: ./%s for that here', checkpoint, checkpoint
        )
    return path


def locate_pretrained(model: str | os.PathLike[str], revision: str | None) -> Any:
    """The checkpoint that `from_pretrained` names: 'user/model' in the Hub, unless it is a path.

    A path is one that is there or absolute, begins with a dot or ends as files of weights do.

    Raises:
      InputError: for a revision of a path, two revisions, or neither a name nor a path.
    """
    if not isinstance(model, str | os.PathLike):
        raise InputError(f'model={model!r} must be user/model of the Hub, or a path')
    name = os.fspath(model)
    is_path = not isinstance(model, str) or os.path.isabs(name) or os.path.exists(name)
    is_path = is_path or name.startswith('.') or name.endswith(SUFFIXES)
    if hub.is_address(model) or is_packaged(model) or is_path:
        if revision is not None:
            raise InputError(f'{model} takes no revision={revision!r}: pass user/model of the Hub')
        return model
    return str(hub.parse_with_revision(name, revision))


def fix_checkpoint(checkpoint: str | None) -> str | None:
    """The checkpoint as processes elsewhere find it: an absolute path, or a commit in the Hub."""
    if checkpoint is None or is_packaged(checkpoint):
        return checkpoint
    return hub.pin(checkpoint) if hub.is_address(checkpoint) else os.path.abspath(checkpoint)


def is_packaged(checkpoint: str | os.PathLike[str] | None) -> bool:
    """True for the bare name of a packaged model; `./small` and `Path('small')` are paths."""
    return isinstance(checkpoint, str) and checkpoint in PACKAGED


def packaged_path(name: str) -> pathlib.Path:
    """The file of a packaged model, which may be missing."""
    return _FOLDER / f'{name}.safetensors'


def holds_weights(path: pathlib.Path) -> bool:
    """True for a folder with `model.safetensors`, as the Hub has them, but no training run's."""
    return (path / hub.WEIGHTS).is_file() and not (path / 'checkpoints').is_dir()


def convert(
    source: str,
    target: str | os.PathLike[str],
    *,
    attention_heads: int | None = None,
    storage: str = 'float32',
    most_bytes: int | None = None,
    sigma_rel: float | None = None,
) -> int:
    """Writes a model as a checkpoint, or as a .pt or .safetensors file, by the target's suffix.

    Args:
      source: see `locate_weights`.
      target: a folder or file that is not there.
      attention_heads: see `load_torch_model`.
      storage, most_bytes: of a file; see `save_torch_model`.
      sigma_rel: of a training run, the average to take in place of its own; see
        `reconstruct_average`.

    Returns:
      The number of parameters.

    Raises:
      InputError: for a target that cannot be written, or if there is no such model.
    """
    is_file = check_target(target, storage, most_bytes)
    model, params = open_weights(source, attention_heads)
    if sigma_rel is not None:
        from m2l_jax.checkpoint.store import read_settings

        workdir, step, settings = read_settings(locate_weights(source))
        kept = {part: params[part] for part in FROZEN[settings.get('freeze', '')]}
        params = {**reconstruct_average(workdir, step, sigma_rel), **kept}  # a sum would round
    if is_file:
        save_torch_model(target, model.config, params, storage=storage, most_bytes=most_bytes)
    else:
        from m2l_jax.checkpoint.store import save_model

        save_model(target, model.config, params)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def check_target(
    target: str | os.PathLike[str], storage: str = 'float32', most_bytes: int | None = None
) -> bool:
    """True for a file and False for a folder to write a model to.

    Args:
      target: the file or folder.
      storage, most_bytes: of a file; see `save_torch_model`.

    Raises:
      InputError: if it is there already, of another kind, or takes no such arguments.
    """
    if hub.is_address(target):
        raise InputError(f'{target}: python -m m2l_jax.push uploads models')
    target, kinds = pathlib.Path(target), f'{" or ".join(SUFFIXES)} files'
    is_file = target.suffix in SUFFIXES
    if target.is_file() or (is_file and target.exists()):
        raise InputError(f'{target} exists already: remove it or choose another name')
    if target.suffix in _OTHER_SUFFIXES:
        raise InputError(f'{target}: weights are written to {kinds}')
    if not is_file and (storage != 'float32' or most_bytes is not None):
        raise InputError(f'{target}: --storage and --most_megabytes are for {kinds}')
    return is_file
