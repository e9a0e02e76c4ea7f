"""Folders that commands write into."""

import os
import pathlib

from m2l_jax.interface.errors import InputError


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes a folder, with its parents, unless it is there; before any work is done for it.

    Raises:
      InputError: if it cannot be made or written into.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'{path} cannot be made a folder ({error.strerror})') from None
    if not os.access(folder, os.W_OK):
        raise InputError(f'{path} cannot be written into: choose another folder')
    return folder
