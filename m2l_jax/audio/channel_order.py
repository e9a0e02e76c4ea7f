"""One order of channels, WAV's, whatever the order of the format that is read or written.

libsndfile gives and takes channels as they are stored. Vorbis and Opus have an order of their own
for three to eight channels (Vorbis I, section 4.3.9; RFC 7845, section 5.1.1.2); WAV, FLAC and what
other formats have by default is left, right, centre, bass, back, side.
"""

import os

import numpy as np
import soundfile

from m2l_jax.audio import tags

Order = slice | list[int]

_AS_STORED = slice(None)
# By the number of channels: which of Vorbis's channels each of WAV's is. Of four they are alike.
_WAV_FROM_VORBIS = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}
_OPUS_HEADER = b'OpusHead'
_OPUS_FAMILY = 18  # the byte of the header that says what the channels are
_IN_VORBIS_ORDER = 1  # and not ambisonics, or channels without a meaning
_FIRST_PAGES_BYTES = 1 << 16


def when_read(file: soundfile.SoundFile, path: str | os.PathLike[str]) -> Order:
    """Indices that bring the channels of an open file into WAV's order."""
    if file.subtype == 'OPUS' and _opus_family(path) != _IN_VORBIS_ORDER:
        return _AS_STORED
    return _vorbis_order(file)


def when_written(file: soundfile.SoundFile) -> Order:
    """Indices that bring channels in WAV's order into that of a file that is being written."""
    order = _vorbis_order(file)
    return order if order is _AS_STORED else np.argsort(order).tolist()


def _vorbis_order(file: soundfile.SoundFile) -> Order:
    if file.subtype not in ('VORBIS', 'OPUS'):
        return _AS_STORED
    return _WAV_FROM_VORBIS.get(file.channels, _AS_STORED)


def _opus_family(path: str | os.PathLike[str]) -> int | None:
    with open(path, 'rb') as file:
        file.seek(tags.skip(file))
        beginning = file.read(_FIRST_PAGES_BYTES)
    header = beginning[beginning.find(_OPUS_HEADER) :]
    return header[_OPUS_FAMILY] if len(header) > _OPUS_FAMILY else None
