"""Files that a user names: a folder, a pattern, a list, a file, or several of them."""

import concurrent.futures
import glob
import logging
import os
import pathlib
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

LIST_SUFFIX = '.txt'

_THREADS = 32  # they wait for the disk, or for the network that it is on
_BLOCK = 1000  # files whose sizes a thread asks for at a time


class Found(NamedTuple):
    """Files as absolute paths, each once, sorted; files of other kinds; the folder they share."""

    folder: str
    files: list[str]
    left_out: list[str]


def list_files(
    path: str | os.PathLike[str], suffixes: Collection[str], others: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Lists a file by itself, or those below a folder that end in `suffixes`, and in `others`.

    Both lists are sorted. Skips hidden files and folders, and links to folders, which are logged;
    suffixes are lower-case and match in any case.

    Raises:
      InputError: if there is no such file or folder, or a folder below cannot be read.
    """
    if os.path.isfile(path):
        return [os.fspath(path)], []
    if not os.path.isdir(path):
        raise InputError(f'{path} does not exist: check the path')
    folders, links, found, left_out = [str(pathlib.Path(path))], [], [], []
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        while folders:
            scanned = list(threads.map(_scan, folders))
            folders = [folder for below, _, _ in scanned for folder in below]
            for _, linked, files in scanned:
                links += linked
                found += (file for file in files if _ends_in(file, suffixes))
                left_out += (file for file in files if _ends_in(file, others))
    if links:
        _logger.warning(
            'not followed: %d links to folders (%s first); pass what they link to as inputs too',
            len(links),
            min(links),
        )
    return sorted(found), sorted(left_out)


def split_inputs(inputs: str) -> list[str]:
    """Splits at commas, but for an existing path with a comma in it; refuses empty parts."""
    if os.path.exists(inputs):
        return [inputs]
    parts = [part.strip() for part in inputs.split(',')]
    if not all(parts):
        raise InputError(f'{inputs!r} lacks a path before or after a comma')
    return parts


def names_others(part: str) -> bool:
    """True for a list, and for a pattern, which is no file or folder itself."""
    if os.path.exists(part):
        return os.path.isfile(part) and part.lower().endswith(LIST_SUFFIX)
    return glob.has_magic(part)


def find_files(
    parts: Iterable[str], suffixes: Collection[str], kind: str, others: Collection[str] = ()
) -> Found:
    """Lists the files that each part names.

    Args:
      parts: each a folder (searched recursively), glob pattern (`**` for folders at any depth),
        file, or list: a `.txt` file with a path a line, relative to the list's folder; blank lines
        and those that begin with `#` are skipped.
      suffixes: lower-case, of the files to take from folders and patterns.
      kind: of these files, for errors.
      others: suffixes of files to report as left out of folders and patterns.

    Returns:
      The files. Those of a list may not exist.

    Raises:
      InputError: if a folder or file is missing, or a pattern matches nothing.
    """
    folders, found, left_out = set(), set(), set()
    for part in map(os.path.abspath, parts):
        if names_others(part) and os.path.exists(part):
            folders_there, listed = _read_list(part)
            folders |= folders_there
            found.update(listed)
            continue
        if os.path.isdir(part):
            folder, (listed, others_there) = part, list_files(part, suffixes, others)
        elif not names_others(part):
            folder, (listed, others_there) = os.path.dirname(part), list_files(part, suffixes)
        else:
            folder, listed, others_there = _match(part, suffixes, kind, others)
        folders.add(folder)
        found.update(listed)
        left_out.update(others_there)
    folder = os.path.commonpath(folders) if folders else os.sep
    return Found(folder, sorted(found), sorted(left_out - found))


def file_sizes(paths: list[str]) -> Iterator[int | None]:
    """The size of each file in bytes; 0 if it cannot be had, None for a folder."""
    blocks = [paths[begin : begin + _BLOCK] for begin in range(0, len(paths), _BLOCK)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        for sizes in threads.map(lambda block: [_size(path) for path in block], blocks):
            yield from sizes


def readable_name(path: str) -> str:
    """A path as text that can be stored and printed: bytes that are no UTF-8 become `\\xff`.

    Different names stay different.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode('utf-8', 'backslashreplace')
    return path


def _scan(folder: str) -> tuple[list[str], list[str], list[str]]:
    """The folders, the links to folders and the files directly in a folder."""
    folders, links, files = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                path = entry.name if folder == '.' else os.path.join(folder, entry.name)
                if not _is_folder(entry):
                    files.append(path)
                else:
                    (links if entry.is_symlink() else folders).append(path)
    except OSError as error:
        if not isinstance(error, PermissionError):
            raise InputError(f'{folder} cannot be read ({error.strerror})') from None
        if os.path.basename(folder) != 'lost+found':  # root's own, at the top of every disk
            raise InputError(f'{folder} cannot be read: change its permissions') from None
    return folders, links, files


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        if entry.is_symlink():  # circular, or to a forbidden place: reading it gives the error
            return False
        raise


def _match(
    pattern: str, suffixes: Collection[str], kind: str, others: Collection[str]
) -> tuple[str, list[str], list[str]]:
    """The folder above a pattern's first wildcard, the files that match, and the others."""
    matches, left_out = [], []
    for match in glob.iglob(pattern, recursive=True):
        if _ends_in(match, suffixes):
            matches.append(match)
        elif _ends_in(match, others) and not os.path.isdir(match):
            left_out.append(match)
    if not matches and not left_out:
        raise InputError(f'no {kind} matches {pattern}: check the pattern, and quote it')
    folder = pattern
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder, matches, left_out


def _read_list(path: str) -> tuple[set[str], list[str]]:
    """The folders that a list's names are relative to, and its files, which may be missing."""
    here = os.path.dirname(path)
    try:
        content = pathlib.Path(path).read_bytes().removeprefix(b'\xef\xbb\xbf')
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror})') from None
    if b'\0' in content:
        raise InputError(f'{path} is no list of files: it is no text')
    lines = [os.fsdecode(line.removesuffix(b'\r')) for line in content.split(b'\n')]
    named = [line for line in lines if line.strip() and not line.startswith('#')]
    if not named:
        raise InputError(f'{path} names no files: put a path on each line')
    files = [os.path.abspath(os.path.join(here, line)) for line in named]
    folders = {os.path.dirname(file) for file in files}
    return folders if all(map(os.path.isabs, named)) else folders | {here}, files


def _ends_in(path: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(path)[1].lower() in suffixes


def _size(path: str) -> int | None:
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return None if stat.S_ISDIR(found.st_mode) else found.st_size
