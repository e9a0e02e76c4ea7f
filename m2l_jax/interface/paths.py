"""Files and folders that commands write."""

import contextlib
import errno
import functools
import hashlib
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator

from m2l_jax.interface.errors import InputError

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows, where no file is locked
    fcntl = None

_PARTIAL = re.compile(r'\.[0-9a-f]{16}\.([0-9a-f]{16})\.(\d+)\.partial')
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_ABANDONED_SECONDS = 86_400  # without a change, where the process that wrote cannot be looked for


def user_cache_folder() -> pathlib.Path:
    """Where what can be had again is kept: `$M2L_JAX_CACHE`, or else `m2l_jax` among the caches.

    Those are in `$XDG_CACHE_HOME`, or else in `~/.cache`. The folder need not exist.

    Raises:
      RuntimeError: for a user without a home.
    """
    if folder := os.environ.get('M2L_JAX_CACHE'):
        return pathlib.Path(folder)
    return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'm2l_jax'


def make_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes a folder, with its parents, unless it is there; before any work is done for it.

    Raises:
      InputError: if it cannot be made or written into.
    """
    return _make_folder(path, [])


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a folder as `make_folder` makes it; what it made and is empty goes after an error.

    Raises:
      InputError: if it cannot be made or written into.
    """
    made: list[pathlib.Path] = []
    try:
        yield _make_folder(path, made)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make_folder(path: str | os.PathLike[str], made: list[pathlib.Path]) -> pathlib.Path:
    """Appends to `made` each folder that was not there before."""
    if '://' in os.fspath(path):
        raise InputError(
            f'{path} is no folder: mount the bucket, with gcsfuse or the like, and pass that folder'
        )
    folder = pathlib.Path(path)
    try:
        for each in (*reversed(folder.parents), folder):
            try:
                each.mkdir()
            except OSError:
                if not each.is_dir():
                    raise
            else:
                made.append(each)
    except OSError as error:
        raise InputError(f'{path} cannot be made a folder ({error.strerror})') from None
    if not os.access(folder, os.W_OK):
        raise InputError(f'{path} cannot be written into: choose another folder')
    return folder


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a name to write to; the file takes `path` once the block has ended without an error.

    Until then `path` is what it was, and after an error nothing is left. The name is this
    process's own, so that others, on other machines too, may write the same file. Missing folders
    are made.

    Raises:
      InputError: if the file cannot be written: no permission, no space, a file for a folder.
    """
    path = pathlib.Path(path)
    partial = _partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror or error})') from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def flush(path: str | os.PathLike[str]) -> None:
    """Waits until a file is on the disk: a machine that loses its power loses what is not.

    Raises:
      InputError: if it cannot be written there.
    """
    try:
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror or error})') from None


def create_file(path: str | os.PathLike[str], text: str) -> bool:
    """Writes a file unless there is one: whole, and of several processes only the first.

    Returns:
      Whether this process has written it.

    Raises:
      InputError: if it cannot be written.
    """
    path = pathlib.Path(path)
    partial = _partial_of(path)
    try:
        partial.write_text(text)
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A mounted bucket, where a file is seen by others once it is closed.
            with open(path, 'x') as file:
                file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror or error})') from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Yields whether a file is now this process's alone, until the block or the process ends.

    Where the file system has no locks, every process is told so.

    Raises:
      InputError: if the file cannot be opened for writing.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        raise InputError(f'{path} cannot be opened ({error.strerror})') from None
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike[str], *, deep: bool) -> None:
    """Removes what processes that were killed had begun to write with `replaced_file`.

    That is what a process of this machine that is gone had begun, or a process of another machine,
    if it has not changed for a day. What a live process writes stays, but for this one, which is
    to write nothing meanwhile: in a container that is started anew it has the number of the last.

    Args:
      folder: where to look.
      deep: in its subfolders too.
    """
    for parent, folders, names in os.walk(folder):
        for match in filter(None, map(_PARTIAL.fullmatch, names)):
            leftover = pathlib.Path(parent, match[0])
            with contextlib.suppress(OSError):  # another process may be tidying too
                if _is_abandoned(leftover, machine=match[1], process=int(match[2])):
                    leftover.unlink()
        if not deep:
            folders.clear()


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _partial_of(path: pathlib.Path) -> pathlib.Path:
    # A digest, for the file's own name may be as long as a name can be.
    name = _digest(os.fsencode(path.name))
    return path.with_name(f'.{name}.{_this_machine()}.{os.getpid()}.partial')


def _is_abandoned(leftover: pathlib.Path, machine: str, process: int) -> bool:
    if machine != _this_machine():
        return time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    return False


@functools.cache
def _this_machine() -> str:
    """Where this process's number means this process: a host's name, and a container's numbers."""
    try:
        numbers = os.readlink('/proc/self/ns/pid')
    except OSError:
        numbers = ''
    return _digest(f'{socket.gethostname()} {numbers}'.encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
