"""The audio files that a user names, and what their headers say."""

import concurrent.futures
import dataclasses
import os

from m2l_jax.audio import files
from m2l_jax.audio.suffixes import AUDIO_SUFFIXES, UNREAD_SUFFIXES, LeftOut, left_out, no_audio
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.listing import find_files, readable_name, split_inputs


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


def list_audio(
    inputs: str, sample_rate: int, shortest: int
) -> tuple[tuple[AudioFile, ...], LeftOut]:
    """Lists audio files and reads their headers.

    Args:
      inputs: folder, pattern, file or list, see `find_files`; several with commas between.
      sample_rate: the rate, in Hz, at which `shortest` counts.
      shortest: files of fewer samples are a problem.

    Returns:
      Every file once, sorted by `source`, and what folders and patterns hold of formats that are
      not read.

    Raises:
      InputError: if a folder or file is missing, or there are no audio files.
    """
    root, paths, unread = find_files(
        split_inputs(inputs), AUDIO_SUFFIXES, 'audio file', UNREAD_SUFFIXES
    )
    not_read = left_out(readable_name(os.path.relpath(path, root)) for path in unread)
    if not paths:
        raise no_audio(inputs, not_read, '--input')
    with concurrent.futures.ThreadPoolExecutor() as threads:
        listed = threads.map(lambda path: _read_file(path, root, sample_rate, shortest), paths)
        return tuple(sorted(listed, key=lambda file: file.source)), not_read


def _read_file(path: str, root: str, sample_rate: int, shortest: int) -> AudioFile:
    source = readable_name(os.path.relpath(path, root))
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
