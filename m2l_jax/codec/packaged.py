"""Models that come with this package, under names that stand for them wherever one is asked for."""

import logging
import os
import pathlib

from m2l_jax.interface.errors import InputError

NAMES = ('small',)

_FOLDER = pathlib.Path(__file__).parents[1] / 'assets'

_logger = logging.getLogger(__name__)


def is_packaged(checkpoint: str | os.PathLike[str] | None) -> bool:
    """Whether it is the name of such a model: the bare string, whatever lies in the current folder.

    `./small` and `pathlib.Path('small')` are a folder or a file of that name.
    """
    return isinstance(checkpoint, str) and checkpoint in NAMES


def packaged_path(name: str) -> pathlib.Path:
    """The file of weights behind a name of `NAMES`, which may be missing."""
    return _FOLDER / f'{name}.safetensors'


def find_packaged(name: str) -> pathlib.Path:
    """The file of weights behind a name of `NAMES`.

    Raises:
      InputError: if this version comes without it.
    """
    path = packaged_path(name)
    if not path.is_file():
        raise InputError(
            f'this version of m2l_jax comes without the model {name!r}: pass the folder of a '
            f'training run, or a .pt or .safetensors file; ./{name} for a folder of that name'
        )
    if os.path.exists(name):
        _logger.warning('%s is the model that comes with m2l_jax: ./%s for that here', name, name)
    return path
