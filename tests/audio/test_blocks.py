"""Reading long files block by block."""

import tracemalloc

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music


def overlapping_slices(whole, block, overlap):
    """The blocks, cut out of the whole file."""
    total, hop = whole.shape[1], block - overlap
    starts = range(0, max(1, total - overlap), hop)
    return [whole[:, start : start + block] for start in starts]


@pytest.mark.parametrize('kind', ['WAV', 'FLAC', 'OGG', 'OPUS', 'MP3', 'AIFF', 'CAF'])
@pytest.mark.parametrize('sample_rate', [44_100, 16_000])
def test_blocks_are_slices_of_the_whole(tmp_path, kind, sample_rate):
    path = tmp_path / 'a'
    rate = 48_000 if kind == 'OPUS' else 44_100
    form, subtype = ('OGG', 'OPUS') if kind == 'OPUS' else (kind, None)
    soundfile.write(path, make_music(3, rate, channels=2).T, rate, subtype, format=form)
    whole = files.read(path, sample_rate)
    for block, overlap in ((20_000, 3_000), (10_007, 0), (2_000, 1_900), (10**6, 5)):
        blocks = list(files.read_blocks(path, sample_rate, block, overlap))
        expected = overlapping_slices(whole, block, overlap)
        assert len(blocks) == len(expected)
        for got, wanted in zip(blocks, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ('samples', 'lengths'), [(1, [1]), (10, [10]), (11, [10, 4]), (17, [10, 10]), (18, [10, 10, 4])]
)
def test_the_last_block_is_more_than_overlap(tmp_path, samples, lengths):
    path = tmp_path / 'a.wav'
    soundfile.write(path, np.arange(samples) / 100, 44_100)
    blocks = files.read_blocks(path, 44_100, 10, 3)
    assert [block.shape for block in blocks] == [(1, length) for length in lengths]


def test_a_block_may_be_changed_while_the_next_is_awaited(tmp_path):
    path = tmp_path / 'a.wav'
    soundfile.write(path, make_music(0.1).T, 44_100)
    whole = files.read(path, 44_100)
    blocks = files.read_blocks(path, 44_100, 2_000, 500)
    next(blocks)[:] = 7
    np.testing.assert_array_equal(next(blocks), whole[:, 1_500:3_500])


def test_memory_is_for_a_block(tmp_path):
    path = tmp_path / 'a.flac'
    with soundfile.SoundFile(path, 'w', 48_000, 2) as file:
        for _ in range(60):
            file.write(np.zeros((480_000, 2), np.int16))
    tracemalloc.start()
    total = sum(block.shape[1] for block in files.read_blocks(path, 44_100, 441_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 600 * 44_100
    assert peak < 25_000_000  # the whole takes 212 MB, a block 3.5


def test_files_that_cannot_be_encoded_are_named(tmp_path):
    path = tmp_path / 'a.wav'
    soundfile.write(path, np.empty((0, 1)), 44_100)
    with pytest.raises(InputError, match=r'a\.wav holds no samples: replace'):
        list(files.read_blocks(path, 44_100, 100))
    music = make_music(1)
    music[0, 30_000] = np.nan
    soundfile.write(path, music.T, 44_100, 'FLOAT')
    with pytest.raises(InputError, match=r'a\.wav holds NaN or infinite samples'):
        list(files.read_blocks(path, 44_100, 10_000))
    with pytest.raises(ValueError, match='blocks of 10 samples cannot overlap by 10'):
        next(files.read_blocks(path, 44_100, 10, 10))
