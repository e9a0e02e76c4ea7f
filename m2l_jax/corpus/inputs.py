"""The inputs of a corpus job, from what the user names. No header is read: there may be millions.

Besides what `find_files` takes, an input may be a TFDS dataset: its folder, `FOLDER[SPLIT]`, or of
audio `tfds:NAME[SPLIT]`.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator

from m2l_jax.audio.suffixes import AUDIO_SUFFIXES, FFMPEG, UNREAD_SUFFIXES, LeftOut, left_out
from m2l_jax.corpus import store
from m2l_jax.corpus.claim import is_claimed
from m2l_jax.corpus.plan import Item
from m2l_jax.corpus.sources import is_latent_shard
from m2l_jax.data.tfds import AudioRecords, is_dataset, split_of
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.listing import (
    LIST_SUFFIX,
    file_sizes,
    find_files,
    readable_name,
    split_inputs,
)

_logger = logging.getLogger(__name__)

# Of files that may hold latents, but in no format that is read.
_TENSOR_SUFFIXES = ('.pt', '.pth', '.safetensors', '.h5')
_SAVE = 'with np.save(X, tensor.numpy())'


def is_single_file(inputs: str) -> bool:
    """Whether they are one file by itself, and no list."""
    return os.path.isfile(inputs) and not inputs.lower().endswith(LIST_SUFFIX)


def find_audio(inputs: str, output: str | os.PathLike[str]) -> tuple[tuple[Item, ...], LeftOut]:
    """Lists the audio to encode: files, and each record of datasets.

    Args:
      inputs: folder, pattern, file, list or dataset; several with commas between.
      output: the job's output folder: what lies below it is no input.

    Returns:
      Every input once, sorted by `source`, and what folders and patterns hold of formats that are
      not read. Files that a list names are there whether they exist or not.

    Raises:
      InputError: if an input is missing, or there is no audio that can be read.
    """
    return _list_items(
        inputs, output, AUDIO_SUFFIXES, 'audio file', _audio_records, UNREAD_SUFFIXES, FFMPEG
    )


def latent_items(inputs: str, output: str | os.PathLike[str]) -> tuple[Item, ...]:
    """The latents to decode: files of `corpus.store`, and each shard of datasets of latents.

    Args, items and errors are those of `find_audio`; a folder in which a job has not come to its
    end is an error too.
    """
    for part in split_inputs(inputs):
        if is_claimed(part) and not os.path.exists(os.path.join(part, 'manifest.json')):
            raise InputError(f'{part} is not complete: run the encoding to its end first')
    items, not_read = _list_items(
        inputs,
        output,
        store.SUFFIXES,
        'file of latents',
        _latent_shards,
        _TENSOR_SUFFIXES,
        _SAVE,
    )
    if not_read.files:
        _logger.warning('%s', not_read.describe(_SAVE))
    return items


def mirrored_name(source: str, suffix: str) -> str:
    """The output file of an input, where each has one: the inputs' tree, with another suffix."""
    return os.path.splitext(source)[0] + suffix


def files_among(items: Iterable[Item]) -> list[Item]:
    """The files of latents among them, as against shards of datasets."""
    return [item for item in items if not is_latent_shard(item.path)]


def check_mirrored(items: Iterable[Item], suffix: str, instead: str = '') -> None:
    """Refuses inputs of which two would have the same output file.

    Args:
      items: the inputs.
      suffix: of the output files.
      instead: what to do other than to rename, for the message.

    Raises:
      InputError: if there are such.
    """
    taken: dict[str, Item] = {}
    pairs = []
    for item in items:
        other = taken.setdefault(mirrored_name(item.source, suffix), item)
        if other is not item:
            pairs.append((other, item))
    if pairs:
        (one, other), more = pairs[0], len(pairs) - 1
        raise InputError(
            f'{one.path} and {other.path} would both become {mirrored_name(one.source, suffix)}'
            f'{f", and {more} more pairs" if more else ""}: rename one of each{instead}'
        )


def _list_items(
    inputs: str,
    output: str | os.PathLike[str],
    suffixes: Collection[str],
    kind: str,
    read_dataset: Callable[[str, str], Iterator[Item]],
    unread_suffixes: Collection[str],
    remedy: str,
) -> tuple[tuple[Item, ...], LeftOut]:
    parts = split_inputs(inputs)
    datasets = [part for part in parts if is_dataset(part)]
    others = [part for part in parts if part not in datasets]
    _refuse_output([*others, *(split_of(part)[0] for part in datasets)], output)
    names = [_dataset_name(part) for part in datasets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'several datasets are called {name!r}: use another --output for each')
    root, paths, unread = find_files(others, suffixes, kind, unread_suffixes)
    items = list(_file_items(root, _outside(output, paths)))
    not_read = left_out(_name_below(root, path) for path in _outside(output, unread))
    for part in datasets:
        place = part if part.startswith('tfds:') else os.path.abspath(part)
        items += read_dataset(place, _dataset_name(part) if len(parts) > 1 else '')
    if not items:
        unread_too = f' ({not_read.describe(remedy)})' if not_read.files else ''
        raise InputError(
            f'no {kind} in {inputs}{unread_too}: '
            f'they end in {", ".join(sorted(suffixes))}; check --input'
        )
    return tuple(sorted(items, key=lambda item: item.source)), not_read


def _refuse_output(parts: Iterable[str], output: str | os.PathLike[str]) -> None:
    folder = os.path.realpath(output)
    for part in parts:
        if os.path.commonpath([folder, os.path.realpath(part)]) == folder:
            raise InputError(f'{part} lies in the output folder {output}: choose another --output')


def _outside(output: str | os.PathLike[str], paths: Iterable[str]) -> list[str]:
    below = os.path.join(os.path.abspath(output), '')
    return [path for path in paths if not path.startswith(below)]


def _file_items(root: str, paths: list[str]) -> Iterator[Item]:
    for path, size in zip(paths, file_sizes(paths), strict=True):
        if size is not None:
            yield Item(_name_below(root, path), path, size)


def _name_below(root: str, path: str) -> str:
    return readable_name(path[len(os.path.join(root, '')) :])


def _dataset_name(path: str) -> str:
    """What comes before its records' names where it is not the only input."""
    return os.path.basename(os.path.normpath(split_of(path)[0])).removeprefix('tfds:')


def _audio_records(path: str, prefix: str) -> Iterator[Item]:
    records = AudioRecords(path)
    size = records.bytes // len(records)
    for number in range(len(records)):
        source = os.path.join(prefix, records.split, f'{number:08d}')
        yield Item(source, records.path, size, number)


def _latent_shards(path: str, prefix: str) -> Iterator[Item]:
    from m2l_jax.corpus import latent_dataset  # TFDS, which takes seconds to import

    shards = list(latent_dataset.shard_lengths(*split_of(path)))
    for shard, size in zip(shards, file_sizes(shards), strict=True):
        yield Item(os.path.join(prefix, os.path.basename(shard)), shard, size or 0)
