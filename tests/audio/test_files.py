import numpy as np
import pytest
import soundfile
import soxr

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file, make_music


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.aiff', '.ogg', '.mp3'])
def test_reads_what_libsndfile_reads(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    music = make_music(1, channels=2)
    soundfile.write(path, music.T, 44_100)
    info = files.read_info(path)
    assert (info.sample_rate, info.channels, info.samples) == (44_100, 2, 44_100)
    waveform = files.read(path, 44_100)
    assert waveform.shape == (2, 44_100)
    assert waveform.dtype == np.float32
    tolerance = 5e-5 if suffix in ('.wav', '.flac', '.aiff') else 0.2
    np.testing.assert_allclose(waveform, music, atol=tolerance)


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg'])
def test_a_part_equals_the_slice_of_the_whole(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    # A seed for which a plain seek into the last page of the Ogg file is misplaced.
    soundfile.write(path, make_music(3, seed=1).T, 44_100)
    whole = files.read(path, 44_100)
    for start, samples in ((0, 1000), (54_321, 34_304), (131_000, 1300), (132_250, 50)):
        part = files.read(path, 44_100, start, samples)
        np.testing.assert_array_equal(part, whole[:, start : start + samples])


@pytest.mark.parametrize('source_rate', [8_000, 22_050, 48_000, 96_000, 44_101])
def test_a_resampled_part_equals_the_slice_of_the_resampled_whole(tmp_path, source_rate):
    path = tmp_path / 'a.wav'
    music = make_music(3, source_rate)
    soundfile.write(path, music.T, source_rate, subtype='FLOAT')
    whole = soxr.resample(music.T, source_rate, 44_100).T
    total = files.read_info(path).samples_at(44_100)
    assert total in (132_299, 132_300)
    np.testing.assert_array_equal(files.read(path, 44_100), whole)
    for start, samples in ((0, 500), (70_001, 34_304), (total - 700, 700)):
        part = files.read(path, 44_100, start, samples)
        assert part.shape == (1, samples)
        np.testing.assert_allclose(part, whole[:, start : start + samples], atol=1e-5)


@pytest.mark.parametrize(('suffix', 'tolerance'), [('.wav', 1e-6), ('.flac', 1e-6), ('.ogg', 0.2)])
def test_writes_and_reads_back(tmp_path, suffix, tolerance):
    music = make_music(4, channels=2)  # long enough for several blocks
    path = tmp_path / 'new' / f'a{suffix}'
    files.write(path, music, 44_100)
    np.testing.assert_allclose(files.read(path, 44_100), music, atol=tolerance)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r'none\.wav does not exist'):
        files.read(tmp_path / 'none.wav', 44_100)
    with pytest.raises(InputError, match='is not a file'):
        files.read(tmp_path, 44_100)
    text = tmp_path / 'text.wav'
    text.write_text('not audio')
    with pytest.raises(
        InputError, match=r'text\.wav cannot be read as audio .*: replace or remove'
    ):
        files.read_info(text)
    for suffix in ('.xyz', '.raw', '.sd2'):
        with pytest.raises(InputError, match=rf"cannot write '\{suffix}' files"):
            files.write(tmp_path / f'a{suffix}', np.zeros((1, 10)), 44_100)


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg'])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f'cut{suffix}'
    soundfile.write(path, make_music(3).T, 44_100)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf'cut\{suffix}'):
        files.read(path, 44_100, 100_000, 30_000)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(InputError, match=r'a\.wav cannot be written \('):
        files.write(tmp_path / f'{"a" * 255}.wav', np.zeros((1, 9)), 44_100)
    assert not list(tmp_path.iterdir())


def test_files_named_twice_are_found_once(music_folder):
    found, _ = files.search(f'{music_folder}, {music_folder}/mono.wav')
    assert found == [f'{music_folder}/mono.wav', f'{music_folder}/stereo.flac']
    again = f'{music_folder}/./mono.wav,{music_folder}/m*.wav,{music_folder}'
    assert files.search(again)[0] == [f'{music_folder}/./mono.wav', f'{music_folder}/stereo.flac']


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg'])
@pytest.mark.parametrize('missing', [1, 100, 5000, -100])
def test_a_disk_that_is_full_before_the_last_byte_is_reported(tmp_path, suffix, missing):
    """libsndfile overlooks what is not written as a FLAC or Ogg file is closed."""
    path, music = tmp_path / f'a{suffix}', make_music(1)
    files.write(path, music, 44_100)
    size = path.stat().st_size
    path.unlink()
    with (
        largest_file(size - missing if missing > 0 else -missing),
        pytest.raises(InputError, match=rf'a\{suffix} cannot be written \(File too large\)'),
    ):
        files.write(path, music, 44_100)
    assert not list(tmp_path.iterdir())


def test_patterns_and_lists_name_files_too(tmp_path):
    for name in ('b.wav', 'a.wav', 'c.flac'):
        soundfile.write(tmp_path / name, np.zeros(100), 44_100)
    (tmp_path / 'some.txt').write_text('c.flac\n')
    paths = [str(tmp_path / name) for name in ('a.wav', 'b.wav', 'c.flac')]
    assert files.search(f'{tmp_path}/*.wav,{tmp_path}/some.txt')[0] == paths
    with pytest.raises(InputError, match=r'no audio file matches .*/\*\.mp3: check the pattern'):
        files.search(f'{tmp_path}/*.mp3')
