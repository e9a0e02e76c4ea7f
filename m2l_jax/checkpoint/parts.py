"""Bytes as several files of limited size, with checksums, for where larger ones do not go."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.json_files import write_json
from m2l_jax.interface.paths import replaced_file

MANIFEST = 'manifest.json'

_SUFFIX = '.part'


def write_parts(
    folder: str | os.PathLike[str], content: bytes, part_bytes: int, about: Mapping[str, Any]
) -> list[pathlib.Path]:
    """Writes `content` into parts, and last the manifest, in place of what the folder held before.

    Args:
      folder: made if missing; of what is in it, only an earlier manifest and its parts go.
      content: what to write.
      part_bytes: of each part at most.
      about: for the manifest, as JSON takes it.

    Returns:
      The files.

    Raises:
      InputError: if they cannot be written; what the folder held before is whole then.
    """
    folder = pathlib.Path(folder)
    before = _named_parts(folder)
    parts = []
    try:
        for number, begin in enumerate(range(0, len(content), part_bytes)):
            part = content[begin : begin + part_bytes]
            digest = hashlib.sha256(part).hexdigest()
            # Named by content: none takes the place of another that the manifest still means.
            path = folder / f'{number}-{digest[:12]}{_SUFFIX}'
            with replaced_file(path) as partial:
                partial.write_bytes(part)
            parts.append({'name': path.name, 'bytes': len(part), 'sha256': digest})
        write_json(folder / MANIFEST, {**about, 'parts': parts})
    except BaseException:
        # A signal may have come when the manifest was new already.
        _remove(folder, {part['name'] for part in parts} - before - _named_parts(folder))
        raise
    _remove(folder, before - {part['name'] for part in parts})
    return [*(folder / part['name'] for part in parts), folder / MANIFEST]


def read_parts(folder: str | os.PathLike[str]) -> tuple[bytes, dict[str, Any]]:
    """What `write_parts` wrote: content, and manifest.

    Raises:
      InputError: if manifest or parts are missing or damaged; it names the file.
    """
    folder = pathlib.Path(folder)
    manifest = _read_manifest(folder / MANIFEST)
    return b''.join(_read_part(folder, part) for part in manifest['parts']), manifest


def _remove(folder: pathlib.Path, names: set[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def _named_parts(folder: pathlib.Path) -> set[str]:
    """Names of the parts that are in a folder by its manifest, if there is one."""
    try:
        return {part['name'] for part in _read_manifest(folder / MANIFEST)['parts']}
    except InputError:
        return set()


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
        for part in manifest['parts']:
            if pathlib.Path(part['name']).name != part['name'] or not part['sha256']:
                raise ValueError
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: pass the folder that holds it') from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f'{path} is damaged: copy it again') from None
    return manifest


def _read_part(folder: pathlib.Path, part: Mapping[str, Any]) -> bytes:
    path = folder / part['name']
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f'{path} cannot be read ({error.strerror}): all parts that {MANIFEST} names must be '
            'in the folder'
        ) from None
    if hashlib.sha256(content).hexdigest() != part['sha256']:
        raise InputError(f'{path} is damaged ({len(content)} bytes): copy it again')
    return content
