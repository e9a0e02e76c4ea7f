"""Sizes in headers that are 0, unknown, too small, or wrapped: all is read, refused, or counted."""

import dataclasses
import os
import re
import struct

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import decoding, files, flac
from m2l_jax.interface.errors import InputError
from tests.audio.kinds import JUNK, id3v2, refusal
from tests.conftest import make_music

RATE = 44_100
GUID_END = bytes.fromhex('f3acd3118cd100c04f8edb8a')


@dataclasses.dataclass(frozen=True)
class Kind:
    """A container as libsndfile writes it.

    Attributes:
      form: its name.
      subtype: of its samples.
      number: struct of its sizes.
      audio: name of the chunk of audio; None if its size is elsewhere.
      outer: place of the size of the whole, if there is one.
      place: of the size of the audio; None if the chunk holds it.
      tail: a chunk after the audio.
      align: of chunks.
    """

    form: str
    subtype: str
    number: str
    audio: bytes = b'data'
    outer: int | None = 4
    place: int | None = None
    tail: bytes = b''
    align: int = 2

    def size_at(self, content):
        """Place of the size of the audio."""
        after_name = content.find(self.audio) + len(self.audio)
        return after_name if self.place is None else self.place


def chunk(header, name, size):
    return struct.pack(header, name, size) + b'x' * 400


LIST = chunk('<4sI', b'LIST', 400)
ANNO = chunk('>4sI', b'ANNO', 400)
KINDS = [
    Kind('WAV', 'PCM_16', '<I', tail=LIST),
    Kind('WAV', 'PCM_24', '<I', tail=LIST),
    Kind('WAV', 'FLOAT', '<I', tail=LIST),
    Kind('WAVEX', 'PCM_24', '<I', tail=LIST),
    Kind('RF64', 'PCM_16', '<Q', outer=20, place=28, tail=LIST),
    Kind(
        'W64',
        'PCM_16',
        '<q',
        audio=b'data' + GUID_END,
        outer=16,
        tail=chunk('<16sq', b'levl' + GUID_END, 424),
        align=8,
    ),
    Kind('AIFF', 'PCM_16', '>I', audio=b'SSND', tail=ANNO),
    Kind('AIFF', 'ULAW', '>I', audio=b'SSND', tail=ANNO),
    Kind('SVX', 'PCM_16', '>I', audio=b'BODY', tail=ANNO),
    Kind('CAF', 'PCM_16', '>q', outer=None, tail=chunk('>4sq', b'info', 400), align=1),
    Kind('AU', 'PCM_16', '>I', outer=None, place=8),
]
each_kind = pytest.mark.parametrize('kind', KINDS, ids=lambda kind: f'{kind.form}_{kind.subtype}')


@pytest.fixture
def whole(tmp_path):
    """Writes music, gives its bytes and what they are read as."""

    def write(kind, samples=30_001):
        path = tmp_path / 'whole'
        music = make_music(1)[:, :samples]
        soundfile.write(path, music.T, RATE, kind.subtype, format=kind.form)
        read, _ = soundfile.read(path, dtype='float32', always_2d=True)
        return path.read_bytes(), read.T

    return write


def patched(content, place, number, value):
    content = bytearray(content)
    struct.pack_into(number, content, place, value % (1 << 8 * struct.calcsize(number)))
    return bytes(content)


def unsigned(number):
    """The struct that takes numbers without a sign."""
    return number.upper()


def check_read(path, content, expected):
    """Part, whole, blocks and header agree on what a file holds."""
    path.write_bytes(content)
    info, total = files.read_info(path), expected.shape[1]
    assert (info.samples, info.sample_rate, info.channels) == (total, RATE, 1)
    np.testing.assert_array_equal(files.read(path, RATE), expected)
    blocks = list(files.read_blocks(path, RATE, 7_000))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected)
    for start in (0, total // 2 - 500, total - 1_000):
        part = files.read(path, RATE, start, 1_000)
        np.testing.assert_array_equal(part, expected[:, start : start + 1_000])
    with pytest.raises(InputError, match='truncated'):
        files.read(path, RATE, total - 10, 20)
    return info.warning


@each_kind
@pytest.mark.parametrize('size', [0, -1, (1 << 31) - 1, (1 << 63) - 1])
@pytest.mark.parametrize('outer', ['true', 'same'])
def test_a_size_that_was_never_filled_in(tmp_path, whole, kind, size, outer):
    content, music = whole(kind)
    content = patched(content, kind.size_at(content), unsigned(kind.number), size)
    if outer == 'same' and kind.outer is not None:
        content = patched(content, kind.outer, unsigned(kind.number), size)
    assert check_read(tmp_path / 'a', content, music) == ''


@each_kind
def test_a_size_of_half_of_what_the_whole_states(tmp_path, whole, kind):
    """The whole goes on to the end of the file without another chunk: the rest may be audio."""
    content, music = whole(kind)
    place = kind.size_at(content)
    size = struct.unpack_from(kind.number, content, place)[0]
    content = patched(content, place, kind.number, size // 48 * 24)
    if kind.form != 'CAF':  # states no size of the whole
        warning = check_read(tmp_path / 'a', content, music)
        counted = 24 if kind.form == 'W64' else 0  # bytes of its header
        stated = size // 48 * 24 - counted
        rest = size + size % 2 - counted - stated
        assert warning == (
            f'the header states {stated} bytes of audio and {rest} follow, '
            'which are read as audio too, 0.3 s'
        )
        return
    kept = (size // 48 * 24 - 4) // 2
    warning = check_read(tmp_path / 'a', content, music[:, :kept])
    left_out = 2 * (music.shape[1] - kept)
    assert warning.startswith(f'{left_out} bytes follow the audio that the header counts')


@each_kind
def test_what_follows_the_whole_is_counted(tmp_path, whole, kind, caplog):
    """A header that was last brought up to date in the middle, or another program's data."""
    content, music = whole(kind, samples=20_000)
    rest = np.random.default_rng(0).bytes(RATE)
    if kind.form == 'AU':  # of no chunks: all that follows is audio, as elsewhere
        path = tmp_path / 'a'
        path.write_bytes(content + rest)
        assert (
            files.read(path, RATE).shape[1] == files.read_info(path).samples == 20_000 + RATE // 2
        )
        return
    path = tmp_path / 'a'
    warning = check_read(path, content + rest, music)
    width = {'PCM_16': 2, 'PCM_24': 3, 'FLOAT': 4, 'ULAW': 1}[kind.subtype]
    assert warning == (
        f'{RATE} bytes follow the audio that the header counts and are left out, '
        f'{1 / width:.1f} s if they are audio'
    )
    assert caplog.messages == [f'{tmp_path / "a"}: {warning}']  # once, of all that was read


@each_kind
@pytest.mark.parametrize('samples', [30_000, 30_001])
def test_chunks_tags_and_padding_are_no_audio(tmp_path, whole, kind, samples):
    content, music = whole(kind, samples)
    tag = b'TAG' + bytes(125)
    assert check_read(tmp_path / 'a', content + tag, music) == ''
    assert check_read(tmp_path / 'a', content + bytes(4096), music) == ''
    if kind.tail:
        padded = content + bytes(-len(content) % kind.align) + kind.tail
        assert check_read(tmp_path / 'a', padded, music) == ''
        assert check_read(tmp_path / 'a', padded + tag, music) == ''
        assert check_read(tmp_path / 'a', content + kind.tail, music) == ''


@each_kind
def test_files_in_a_row_are_refused(tmp_path, whole, kind):
    content, _ = whole(kind)
    path = tmp_path / 'a'
    path.write_bytes(content * 2)
    message = refusal(path, RATE)
    assert f'{path} holds several streams in a row' in message
    assert message.endswith('split it into one file for each')  # ffmpeg reads the first


@each_kind
def test_a_size_of_more_than_the_file_is_refused(tmp_path, whole, kind):
    content, _ = whole(kind)
    place = kind.size_at(content)
    size = struct.unpack_from(kind.number, content, place)[0]
    path = tmp_path / 'a'
    path.write_bytes(patched(content, place, kind.number, size + 5_000))
    for read in (files.read_info, lambda path: files.read(path, RATE)):
        with pytest.raises(InputError, match=r'a ends after .* the file is truncated'):
            read(path)


@pytest.mark.parametrize(
    ('form', 'subtype', 'width'),
    [('MAT4', 'DOUBLE', 8), ('MAT4', 'PCM_16', 2), ('SDS', 'PCM_16', 3), ('SDS', 'PCM_S8', 2)],
)
def test_formats_of_other_kinds_count_what_is_left_out(tmp_path, form, subtype, width):
    path = tmp_path / 'a'
    soundfile.write(path, make_music(1).T, RATE, subtype, format=form)
    assert files.read_info(path).warning == ''
    path.write_bytes(path.read_bytes() + bytes(width * RATE))
    info = files.read_info(path)
    assert info.samples == RATE
    count, seconds = re.fullmatch(
        r'(\d+) bytes follow .* left out, (.*) s if they are audio', info.warning
    ).groups()
    assert int(count) == pytest.approx(width * RATE, abs=1_000)
    assert float(seconds) == pytest.approx(1, abs=0.1)


def test_a_second_chunk_of_audio_is_counted(tmp_path, whole):
    content, music = whole(KINDS[0])
    second = struct.pack('<4sI', b'data', 8_820) + bytes(8_820)
    content += second
    content = patched(content, 4, '<I', len(content) - 8)
    warning = check_read(tmp_path / 'a', content, music)
    assert warning.startswith('8820 bytes follow')
    assert warning.endswith('0.1 s if they are audio')


def test_a_wav_without_audio_is_empty(tmp_path, whole):
    content, _ = whole(KINDS[0], samples=0)
    path = tmp_path / 'a'
    path.write_bytes(content + LIST)
    info = files.read_info(path)
    assert (info.samples, info.warning) == (0, '')


def test_bw64_is_read(tmp_path, whole):
    content, music = whole(KINDS[4])
    assert check_read(tmp_path / 'a', b'BW64' + content[4:], music) == ''


def test_alac_in_caf_is_what_its_table_counts(tmp_path, whole):
    kind = Kind('CAF', 'ALAC_16', '>q', outer=None)
    content, music = whole(kind)
    for size in (-1, 0, 1_000):
        content = patched(content, kind.size_at(content), unsigned('>q'), size)
        assert check_read(tmp_path / 'a', content, music) == ''


def test_caf_with_a_chunk_of_no_audio_from_a_pipe(tmp_path, whole):
    """Some programs state the order of channels, and names, before audio of unknown size."""
    kind = KINDS[-2]
    content, music = whole(kind)
    place = content.index(b'data')
    content = content[:place] + kind.tail + content[place:]
    content = patched(content, place + len(kind.tail) + 4, unsigned('>q'), -1)
    assert check_read(tmp_path / 'a', content, music) == ''


def write_sparse(path, head, size, end, tail=b''):
    """A file of a size that takes little room: its first bytes, zeros, and its last."""
    with open(path, 'wb') as file:
        file.write(head)
        file.seek(len(head) + size - len(end))
        file.write(end + tail)


OVER = (1 << 32) + 20 * RATE


def sized(size):
    return size % (1 << 32)


@pytest.mark.parametrize(
    ('size', 'tail'),
    [
        (OVER, b''),
        (OVER, LIST),
        (0, b''),
        (-1, b''),
        (-2, b''),
        ((1 << 31) - 1, b''),
        ((1 << 31) - 4096, b''),
    ],
)
def test_wav_over_4_gib_is_read_to_its_end(tmp_path, whole, size, tail):
    content, music = whole(KINDS[0])
    head = patched(patched(content[:44], 40, '<I', size), 4, '<I', size + 36 + len(tail))
    path = tmp_path / 'a.wav'
    write_sparse(path, head, OVER, content[44:], tail)
    info = files.read_info(path)
    assert (info.samples, info.warning) == (OVER // 2, '')
    last = files.read(path, RATE, OVER // 2 - music.shape[1], music.shape[1])
    np.testing.assert_array_equal(last, music)


def test_wav_over_4_gib_of_another_size_is_refused(tmp_path, whole):
    content, _ = whole(KINDS[0])
    path = tmp_path / 'a.wav'
    write_sparse(path, content[:44], OVER, content[44:])
    with pytest.raises(InputError, match=r'a\.wav is longer than its header can say'):
        files.read_info(path)


def test_aiff_over_4_gib_is_refused(tmp_path, whole):
    content, _ = whole(KINDS[6])
    begin = content.index(b'SSND') + 8
    path = tmp_path / 'a.aiff'
    write_sparse(path, patched(content[:begin], begin - 4, '>I', OVER), OVER, content[begin:])
    with pytest.raises(InputError, match=r'a\.aiff is longer than .* convert it to RF64 or FLAC'):
        files.read_info(path)


@pytest.mark.parametrize('kind', [KINDS[4], KINDS[5], KINDS[-2], KINDS[-1]], ids=lambda k: k.form)
@pytest.mark.parametrize('size', [0, -1, (1 << 63) - 1])
def test_wide_sizes_over_4_gib(tmp_path, whole, kind, size):
    content, music = whole(kind)
    begin = len(content) - 2 * music.shape[1]
    head = patched(content[:begin], kind.size_at(content), unsigned(kind.number), size)
    path = tmp_path / 'a'
    write_sparse(path, head, OVER, content[begin:])
    assert files.read_info(path).samples == OVER // 2
    last = files.read(path, RATE, OVER // 2 - music.shape[1], music.shape[1])
    np.testing.assert_array_equal(last, music)


def test_what_is_written_beyond_the_limit_is_rf64(tmp_path, monkeypatch):
    music = make_music(1, channels=2)
    plain, wide = tmp_path / 'plain.wav', tmp_path / 'wide.wav'
    files.write(plain, music, RATE)
    soundfile.write(tmp_path / 'b.wav', music.T, RATE, 'PCM_24')
    assert plain.read_bytes() == (tmp_path / 'b.wav').read_bytes()
    monkeypatch.setattr(files, '_MOST_BYTES', 6 * RATE)
    files.write(wide, music, RATE)
    assert wide.read_bytes() == plain.read_bytes()
    monkeypatch.setattr(files, '_MOST_BYTES', 6 * RATE - 1)
    files.write(wide, music, RATE)
    assert wide.read_bytes()[:4] == b'RF64'
    assert files.read_info(wide).samples == RATE
    np.testing.assert_array_equal(files.read(wide, RATE), files.read(plain, RATE))
    with pytest.raises(files.FormatError, match=r'a\.aiff: AIFF cannot hold more than'):
        files.write(tmp_path / 'a.aiff', np.tile(music, 3), RATE)
    assert not (tmp_path / 'a.aiff').exists()
    files.write(tmp_path / 'a.flac', np.tile(music, 3), RATE)


def set_flac_samples(content, samples):
    header = flac.with_samples(content[: flac.HEADER_BYTES], samples)
    return header + content[flac.HEADER_BYTES :]


FLAC = Kind('FLAC', 'PCM_16', '')


@pytest.mark.parametrize('samples', [0, 1, 20_000, 30_000])
@pytest.mark.parametrize('tail', [b'', b'TAG' + bytes(125)])
def test_flac_that_states_too_few_samples(tmp_path, whole, samples, tail):
    content, music = whole(FLAC)
    assert check_read(tmp_path / 'a', set_flac_samples(content, samples) + tail, music) == ''


@pytest.mark.parametrize('samples', [100, 4_096, 30_001])
def test_the_last_frame_tells_the_length_of_a_flac(whole, samples):
    content, _ = whole(FLAC, samples)
    stream = flac.parse(content[: flac.HEADER_BYTES])
    assert (stream.channels, stream.bits, stream.samples) == (1, 16, samples)
    assert flac.find_end(content, stream)[0] == samples
    assert flac.find_end(content[: flac.HEADER_BYTES], stream) is None
    false = content + b'\xff\xf8\xc9\x08\x00'  # the beginning of a header, and no more
    assert flac.find_end(false, stream)[0] == samples


def test_a_flac_whose_first_frame_is_a_later_one(tmp_path, whole):
    """A recorded broadcast: the number of its last frame is not its length."""
    content, music = whole(FLAC)
    content = set_flac_samples(content, 0)
    first = content.index(b'\xff\xf8')
    second = content.index(content[first : first + 4] + b'\1', first)
    path = tmp_path / 'a.flac'
    path.write_bytes(content[:first] + content[second:])
    np.testing.assert_array_equal(files.read(path, RATE), music[:, 4_096:])
    assert files.read_info(path).samples == music.shape[1] - 4_096


def test_a_flac_that_goes_away_while_it_is_read_is_named(tmp_path, whole, monkeypatch):
    path = tmp_path / 'a.flac'
    path.write_bytes(whole(FLAC)[0])
    monkeypatch.setattr(decoding, '_read_order', lambda *_: os.stat(tmp_path / 'gone'))
    with pytest.raises(InputError, match=r'a\.flac is damaged \(.*No such file'):
        files.read(path, RATE)


@pytest.mark.parametrize('seconds', [0.2, 0.5, 1])
@pytest.mark.parametrize('between', [b'', id3v2(3_000), bytes(2_000)], ids=['', 'ID3', 'zeros'])
@pytest.mark.parametrize('after', [b'', bytes(2_000)], ids=['', 'zeros after'])
def test_flac_streams_in_a_row_are_refused(tmp_path, whole, seconds, between, after):
    first, _ = whole(FLAC, RATE // 2)
    second, _ = whole(FLAC, int(seconds * RATE))
    path = tmp_path / 'a.flac'
    path.write_bytes(first + between + second + after)
    assert refusal(path, RATE) == (
        f'{path} holds several streams in a row, which cannot be read as one: '
        'split it into one file for each'
    )


TAG_BEHIND = b'APETAGEX' + JUNK[:3_000]


@pytest.mark.parametrize('before', [b'', id3v2(90_000)], ids=['', 'ID3'])
@pytest.mark.parametrize('states_samples', [True, False])
@pytest.mark.parametrize(
    'after',
    [b'', bytes(1), bytes(4_096), TAG_BEHIND, TAG_BEHIND * 50, b'TAG' + bytes(125)],
    ids=['', 'zero', 'zeros', 'APE', 'picture', 'ID3v1'],
)
def test_tags_and_zeros_around_a_flac(tmp_path, whole, before, states_samples, after):
    content, music = whole(FLAC)
    if not states_samples:
        content = set_flac_samples(content, 0)
    assert check_read(tmp_path / 'a', before + content + after, music) == ''


@pytest.mark.parametrize('before', [b'', id3v2(90_000)], ids=['', 'ID3'])
def test_a_flac_of_another_end_is_refused_in_one_way(tmp_path, whole, before):
    content, _ = whole(FLAC)
    path = tmp_path / 'a.flac'
    for broken in (content + JUNK[:5_000], content[:-50], content[:-1]):
        path.write_bytes(before + broken)
        assert refusal(path, RATE) == (
            f'{path} is damaged at its end, sample 30001: a frame is cut, or bytes follow that are '
            'no audio; replace or remove it'
        )


def riff_chunk(name, content, size=None):
    return name + struct.pack('<I', len(content) if size is None else size) + content


LARGE = JUNK[:60_001]
PIECES = riff_chunk(b'LIST', JUNK[:401])


@pytest.mark.parametrize(
    'chunks',
    [
        riff_chunk(b'id3 ', LARGE, len(LARGE) + 10),
        riff_chunk(b'ID3 ', LARGE, 0),
        riff_chunk(b'id3 ', LARGE)[:-20_000],
        riff_chunk(b'LIST', LARGE, len(LARGE) + 8),
        riff_chunk(b'iXML', LARGE) + PIECES,
        riff_chunk(b'iXML', LARGE) + PIECES + riff_chunk(b'abcd', LARGE) + PIECES,
        riff_chunk(b'PAD\0', bytes(70_000)),
        riff_chunk(b'\xa9nam', LARGE),
        riff_chunk(b'SMED', LARGE) + riff_chunk(b'_PMX', LARGE),
        bytes(50_000),
        id3v2(50_000),
    ],
)
def test_malformed_chunks_behind_the_audio_are_none(tmp_path, whole, chunks):
    content, music = whole(KINDS[0], 30_000)
    content += chunks
    content = patched(content, 4, '<I', len(content) - 8)
    assert check_read(tmp_path / 'a', content, music) == ''


@pytest.mark.parametrize('outer', [0, 0xFFFF_FFFF])
def test_an_unknown_size_of_the_whole_makes_nothing_audio(tmp_path, whole, outer):
    content, music = whole(KINDS[0], 30_000)
    content = patched(content + JUNK[:44_100], 4, '<I', outer)
    assert check_read(tmp_path / 'a', content, music) == (
        '44100 bytes follow the audio that the header counts and are left out, '
        '0.5 s if they are audio'
    )


@pytest.mark.parametrize('between', [bytes(3_000), id3v2(3_000)], ids=['zeros', 'ID3'])
def test_files_with_more_between_them_are_refused(tmp_path, whole, between):
    content, _ = whole(KINDS[0])
    path = tmp_path / 'a.wav'
    path.write_bytes(content + between + content)
    assert f'{path} holds several streams in a row' in refusal(path, RATE)


@pytest.mark.parametrize('subtype', ['FLOAT', 'DOUBLE', 'ULAW', 'ALAW', 'PCM_24'])
def test_wave64_with_an_extended_format(tmp_path, whole, subtype):
    """As written by ffmpeg where samples are of floating point."""
    content, music = whole(Kind('W64', subtype, '<q'))
    place = content.index(b'fmt ' + GUID_END)
    (size,) = struct.unpack_from('<q', content, place + 16)
    form, rest = content[place + 24 : place + 40], content[place + size + -size % 8 :]
    guid = form[:2] + bytes.fromhex('000000001000800000aa00389b71')
    extended = b'\xfe\xff' + form[2:] + struct.pack('<HHI', 22, 8 * (form[14] // 8), 4) + guid
    extended = content[place : place + 16] + struct.pack('<q', 24 + len(extended)) + extended
    content = content[:place] + extended + rest
    content = patched(content, 16, '<q', len(content))
    assert check_read(tmp_path / 'a', content, music) == ''


def test_channels_one_after_the_other_are_refused(tmp_path):
    path = tmp_path / 'a.8svx'
    soundfile.write(path, make_music(1).T, RATE, 'PCM_S8', format='SVX')
    content = path.read_bytes()
    place = content.index(b'BODY')
    stereo = content[:place] + b'CHAN' + struct.pack('>II', 4, 6) + content[place:]
    path.write_bytes(patched(stereo, 4, '>I', len(stereo) - 8))
    assert 'a.8svx holds its channels one after the other' in refusal(path, RATE)
