"""Files and folders that commands write."""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

from m2l_jax.interface.errors import InputError

_PARTIAL = re.compile(r'\.[0-9a-f]{16}\.([0-9a-f]{16})\.(\d+)\.partial')
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
_ABANDONED_SECONDS = 86_400  # without a change, for files of other machines

PathLike = str | os.PathLike[str]


def user_cache_folder() -> pathlib.Path:
    """The folder for downloads and compiled programs; it need not exist.

    `$M2L_JAX_CACHE`, or else `m2l_jax` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
      RuntimeError: for a user without a home.
    """
    if folder := os.environ.get('M2L_JAX_CACHE'):
        return pathlib.Path(folder)
    return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'm2l_jax'


def make_folder(path: PathLike) -> pathlib.Path:
    """Makes a folder with its parents, or keeps the one that is there.

    Raises:
      InputError: if it cannot be made or written into.
    """
    with new_folder(path) as folder:
        return folder


@contextlib.contextmanager
def new_folder(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a folder as `make_folder`; after an error, removes what it made and is empty."""
    if '://' in os.fspath(path):
        raise InputError(
            f'{path} is no folder: mount the bucket, with gcsfuse or the like, and pass that folder'
        )
    folder, made = pathlib.Path(path), []
    try:
        for each in (*reversed(folder.parents), folder):
            try:
                each.mkdir()
                made.append(each)
            except OSError as error:
                if not os.path.isdir(each):
                    reason = error.strerror
                    raise InputError(f'{path} cannot be made a folder ({reason})') from None
        if not os.access(folder, os.W_OK):
            raise InputError(f'{path} cannot be written into: choose another folder')
        yield folder
    except BaseException:
        for each in reversed(made):
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


@contextlib.contextmanager
def _writing(path: PathLike) -> Iterator[None]:
    """Turns the system's errors into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror or error})') from None


@contextlib.contextmanager
def replaced_file(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a name to write to; the file takes the place of `path` if the block succeeds.

    After an error, `path` is as before and nothing is left. The name is this process's own: others,
    on other machines too, may write the same file. Missing folders are made.

    Raises:
      InputError: if the file cannot be written: no permission, no space, a file for a folder.
    """
    path = pathlib.Path(path)
    with _writing(path), _partial_of(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)


def write_json(path: PathLike, content: Any, indent: int | None = 2) -> None:
    """Writes `to_json(content)` as `replaced_file` does."""
    text = to_json(content, indent)
    with replaced_file(path) as partial:
        partial.write_text(text + '\n')


def to_json(content: Any, indent: int | None = 2) -> str:
    """JSON in which numbers that are not finite, such as the SI-SDR of silence, are null.

    `indent` is in spaces a level; None for one line.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def flush(path: PathLike) -> None:
    """Waits until a file is on the disk, where it survives a loss of power.

    Raises:
      InputError: if it cannot be written there.
    """
    with _writing(path), open(path, 'rb') as file:
        os.fsync(file.fileno())


def create_file(path: PathLike, text: str) -> bool:
    """Writes a new file whole and returns True; False if it is there, by another process perhaps.

    Raises:
      InputError: if it cannot be written.
    """
    path = pathlib.Path(path)
    with _writing(path), _partial_of(path) as partial:
        partial.write_text(text)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A mounted bucket, where others see a file once it is closed.
            try:
                with open(path, 'x') as file:
                    file.write(text)
            except FileExistsError:
                return False
    return True


def remove_leftovers(folder: PathLike, *, deep: bool) -> None:
    """Removes the unfinished files of `replaced_file` whose processes are gone, in a folder.

    Those of another machine go after a day without a change. Those with this process's number go
    too, so it must not be writing: a container that is started anew has the number of the last.
    `deep` looks into subfolders too.
    """
    for parent, folders, names in os.walk(folder):
        for match in filter(None, map(_PARTIAL.fullmatch, names)):
            leftover = pathlib.Path(parent, match[0])
            with contextlib.suppress(OSError):  # another process may be tidying too
                if _is_abandoned(leftover, machine=match[1], process=int(match[2])):
                    leftover.unlink()
        if not deep:
            folders.clear()


@contextlib.contextmanager
def _partial_of(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside `path` that no other process uses; what is left there is removed."""
    # A digest, for the file's own name may be as long as a name can be.
    name = _digest(os.fsencode(path.name))
    partial = path.with_name(f'.{name}.{_this_machine()}.{os.getpid()}.partial')
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _is_abandoned(leftover: pathlib.Path, machine: str, process: int) -> bool:
    if machine != _this_machine():
        return time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except OSError as error:  # or another user's
        return isinstance(error, ProcessLookupError)
    return False


@functools.cache
def _this_machine() -> str:
    """Digest of the host's name and the container's process numbers, within which pids count."""
    try:
        numbers = os.readlink('/proc/self/ns/pid')
    except OSError:
        numbers = ''
    return _digest(f'{socket.gethostname()} {numbers}'.encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
