"""Files and folders that commands read and write."""

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator

from m2l_jax.interface.errors import InputError


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes a folder, with its parents, unless it is there; before any work is done for it.

    Raises:
      InputError: if it cannot be made or written into.
    """
    if '://' in os.fspath(path):
        raise InputError(
            f'{path} is no folder: mount the bucket, with gcsfuse or the like, and pass that folder'
        )
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


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a name to write to; the file takes `path` once the block has ended without an error.

    Until then `path` is what it was, and after an error nothing is left. The name is this
    process's own, so that others may write the same file. Missing folders are made.

    Raises:
      InputError: if the file cannot be written: no permission, no space, a file for a folder.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror or error})') from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
