"""Folders that commands read from and write into."""

import os
import pathlib
from collections.abc import Collection

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


def list_files(path: str | os.PathLike[str], suffixes: Collection[str]) -> list[str]:
    """A file by itself, or the files below a folder that end in one of `suffixes`, sorted.

    Hidden files are left out; suffixes are lower-case and match in any case.

    Raises:
      InputError: if there is no such file or folder.
    """
    if os.path.isfile(path):
        return [os.fspath(path)]
    if not os.path.isdir(path):
        raise InputError(f'{path} does not exist: check the path')
    return sorted(
        str(file)
        for file in pathlib.Path(path).rglob('*')
        if file.suffix.lower() in suffixes and not file.name.startswith('.') and file.is_file()
    )
