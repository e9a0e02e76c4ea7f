"""The audio files that a user names, and what their headers say."""

import concurrent.futures
import dataclasses
import glob
import os
import pathlib

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import list_files


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A listed file.

    Attributes:
      source: its name below the folder that all inputs share, with forward slashes.
      bytes: its size.
      info: its header, or None where it cannot be read.
      problem: why it cannot be used, or nothing.
    """

    source: str
    bytes: int
    info: files.AudioInfo | None
    problem: str = ''


def list_audio(inputs: str, sample_rate: int, shortest: int) -> tuple[AudioFile, ...]:
    """Lists audio files and reads their headers.

    Args:
      inputs: folder (searched recursively), glob pattern (`**` for folders at any depth) or file;
        several with commas between.
      sample_rate: the rate, in Hz, at which `shortest` counts.
      shortest: files of fewer samples are a problem.

    Returns:
      Every file once, sorted by `source`.

    Raises:
      InputError: if a folder or file is missing, or there are no audio files.
    """
    parts = [_expand(part.strip()) for part in inputs.split(',')]
    root = os.path.commonpath([os.path.abspath(folder) for folder, _ in parts])
    paths = sorted({os.path.abspath(path) for _, listed in parts for path in listed})
    if not paths:
        kinds = ', '.join(sorted({'.wav', '.flac', '.ogg', '.mp3'} & files.AUDIO_SUFFIXES))
        raise InputError(f'no audio files in {inputs}: put some there ({kinds}, …) or mend --input')
    with concurrent.futures.ThreadPoolExecutor() as threads:
        listed = threads.map(lambda path: _read_file(path, root, sample_rate, shortest), paths)
        return tuple(sorted(listed, key=lambda file: file.source))


def _expand(part: str) -> tuple[str, list[str]]:
    """The folder that names are relative to, and the audio files."""
    if os.path.isdir(part):
        return part, list_files(part, files.AUDIO_SUFFIXES)
    if os.path.exists(part) or not glob.has_magic(part):
        return os.path.dirname(part), list_files(part, files.AUDIO_SUFFIXES)
    matches = [
        match
        for match in glob.glob(part, recursive=True)
        if pathlib.Path(match).suffix.lower() in files.AUDIO_SUFFIXES and os.path.isfile(match)
    ]
    if not matches:
        raise InputError(f'no audio file matches {part}: check the pattern, and quote it')
    folder = part
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder, matches


def _read_file(path: str, root: str, sample_rate: int, shortest: int) -> AudioFile:
    # Readable whatever bytes the file system has for a name: it is stored with the audio.
    name = os.fsencode(pathlib.Path(path).relative_to(root).as_posix())
    source = name.decode('utf-8', 'replace')
    try:
        size = os.path.getsize(path)
        info = files.read_info(path)
    except OSError as error:
        return AudioFile(source, 0, None, f'{path} cannot be read ({error.strerror})')
    except InputError as error:
        return AudioFile(source, size, None, str(error))
    if info.samples_at(sample_rate) < shortest:
        problem = f'{path} is shorter than a crop ({shortest} samples at {sample_rate} Hz)'
        return AudioFile(source, size, info, problem)
    return AudioFile(source, size, info)
