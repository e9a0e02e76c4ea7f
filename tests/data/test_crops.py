import logging

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import files
from m2l_jax.data.config import Collection
from m2l_jax.data.crops import CropReader
from m2l_jax.data.sources import AudioFolder, open_collections
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

CROP = 8192


def open_reader(folder, seed=0, min_rms=0.001):
    mix = [Collection(str(folder), str(folder), 1.0)]
    return CropReader(open_collections(mix, 44_100, CROP), seed, min_rms)


def only_source(reader):
    ((_, source),) = reader._mix
    return source


def draw(reader, step, row):
    """The first draw of a row, whatever it falls on."""
    return only_source(reader).draw(reader._random(step, row, 1))


def write_flac_of_unknown_length(path):
    """As into a pipe: total_samples, 36 bits from byte 21, is 0."""
    soundfile.write(path, make_music(3).T, 44_100)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)


def test_a_crop_is_a_function_of_seed_step_and_row(music_folder):
    reader, same = open_reader(music_folder), open_reader(music_folder)
    for step, row in ((0, 0), (5, 3), (5, 2), (0, 0)):
        np.testing.assert_array_equal(reader.read(step, row), same.read(step, row))
    places = {(c.item, c.start) for c in (draw(reader, s, r) for s in range(8) for r in range(8))}
    assert len(places) == 64
    assert draw(open_reader(music_folder, seed=1), 0, 0) != draw(reader, 0, 0)


def test_a_crop_is_the_part_of_the_file_that_was_drawn(music_folder):
    reader = open_reader(music_folder)
    for row in range(5):
        crop = draw(reader, 7, row)
        whole = files.read(crop.item, 44_100)
        expected = whole[crop.channel, crop.start : crop.start + CROP]
        np.testing.assert_array_equal(reader.read(7, row), expected)


def test_files_are_drawn_by_length_and_channels_evenly(tmp_path):
    soundfile.write(tmp_path / 'long.wav', make_music(9, channels=2).T, 44_100)
    soundfile.write(tmp_path / 'short.wav', make_music(3).T, 44_100)
    reader = open_reader(tmp_path)
    crops = [draw(reader, 0, row) for row in range(2000)]
    long = [crop for crop in crops if crop.item.endswith('long.wav')]
    assert len(long) / len(crops) == pytest.approx(0.75, abs=0.03)
    assert np.mean([crop.channel for crop in long]) == pytest.approx(0.5, abs=0.04)
    starts = np.array([crop.start for crop in long])
    assert np.mean(starts) == pytest.approx((9 * 44_100 - CROP) / 2, rel=0.05)
    assert starts.max() <= 9 * 44_100 - CROP


def test_broken_files_are_skipped_named_once_and_never_end_it(music_folder, caplog):
    (music_folder / 'text.wav').write_text('not audio')
    (music_folder / 'empty.flac').touch()
    write_flac_of_unknown_length(music_folder / 'piped.flac')
    soundfile.write(music_folder / 'brief.wav', make_music(0.1).T, 44_100)
    soundfile.write(music_folder / 'silent.wav', np.zeros(200_000), 44_100)
    broken = make_music(4)
    broken[0, ::1000] = np.nan
    soundfile.write(music_folder / 'nan.wav', broken.T, 44_100, subtype='FLOAT')
    cut = music_folder / 'cut.flac'
    soundfile.write(cut, make_music(6).T, 44_100)
    cut.write_bytes(cut.read_bytes()[:50_000])

    unusable = ('text.wav', 'empty.flac', 'brief.wav')
    with caplog.at_level(logging.WARNING):
        reader = open_reader(music_folder)
    skipped = {reason.split()[0].rsplit('/')[-1]: reason for reason in only_source(reader).skipped}
    assert set(skipped) == set(unusable)
    assert 'shorter than a crop (8192 samples at 44100 Hz)' in skipped['brief.wav']
    usable = {file.path.rsplit('/')[-1] for file in only_source(reader).files}
    assert 'piped.flac' in usable
    with caplog.at_level(logging.WARNING):
        for row in range(200):
            assert np.sqrt(np.mean(reader.read(0, row) ** 2)) >= 0.001
    named = {path.rsplit('/')[-1]: reason for path, reason in reader.reported.items()}
    assert set(named) == {'silent.wav', 'nan.wav', 'cut.flac'}
    assert 'is silent (RMS below 0.001): remove it' in named['silent.wav']
    assert 'holds NaN or infinite samples: replace or remove it' in named['nan.wav']
    assert len(caplog.records) == len(skipped) + len(named)


def test_rejection_does_not_shift_the_other_rows(music_folder):
    """A row whose first draw is rejected is redrawn for itself alone."""
    soundfile.write(music_folder / 'silent.wav', np.zeros(400_000), 44_100)
    reader = open_reader(music_folder)
    silent = [row for row in range(40) if 'silent' in draw(reader, 0, row).item]
    sounding = [row for row in range(40) if row not in silent]
    assert silent
    for row in sounding:
        crop = draw(reader, 0, row)
        whole = files.read(crop.item, 44_100)
        expected = whole[crop.channel, crop.start : crop.start + CROP]
        np.testing.assert_array_equal(reader.read(0, row), expected)


def test_a_useless_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'nowhere does not exist: check the path'):
        AudioFolder(str(tmp_path / 'nowhere'), 44_100, CROP)
    with pytest.raises(InputError, match='no audio files in'):
        AudioFolder(str(tmp_path), 44_100, CROP)
    (tmp_path / 'text.wav').write_text('not audio')
    with pytest.raises(InputError, match=r'none of the 1 audio files .*text\.wav cannot be read'):
        AudioFolder(str(tmp_path), 44_100, CROP)


def test_formats_that_are_not_read_are_named_at_the_start(music_folder, tmp_path):
    (music_folder / 'other.m4a').touch()
    line = AudioFolder(str(music_folder), 44_100, CROP).describe()
    assert line.endswith(
        f'1 .m4a ({music_folder}/other.m4a first); convert each, as by `ffmpeg -i X X.flac`'
    )
    (tmp_path / 'others').mkdir()
    (tmp_path / 'others/a.wma').touch()
    with pytest.raises(InputError, match=r'no audio files in .*others \(files left out'):
        AudioFolder(str(tmp_path / 'others'), 44_100, CROP)


def test_a_link_in_a_circle_is_skipped(music_folder):
    (music_folder / 'self.wav').symlink_to('self.wav')
    (music_folder / 'lost.wav').symlink_to('gone.wav')
    skipped = AudioFolder(str(music_folder), 44_100, CROP).skipped
    assert skipped == tuple(
        f'{music_folder}/{name}.wav does not exist or is not a file: check the path'
        for name in ('lost', 'self')
    )


def test_crops_that_are_too_loud_are_warned_of_and_absurd_ones_left_out(tmp_path, caplog):
    loud, absurd = tmp_path / 'loud.wav', tmp_path / 'absurd.wav'
    music = make_music(1)
    soundfile.write(loud, music.T * 32_768, 44_100, subtype='FLOAT')
    soundfile.write(absurd, music.T * 1e30, 44_100, subtype='FLOAT')
    reader = open_reader(tmp_path)
    crops = [reader.read(0, row) for row in range(8)]
    assert all(8 < np.abs(crop).max() < 2**16 for crop in crops)
    assert list(reader.reported) == [str(absurd)]
    assert reader.reported[str(absurd)].startswith(f'{absurd} is too loud: peak ')
    warnings = [line for line in caplog.messages if line.startswith(f'{loud}: too loud: peak')]
    assert len(warnings) == 1


def test_a_silent_corpus_is_refused(tmp_path):
    soundfile.write(tmp_path / 'silent.wav', np.zeros(100_000), 44_100)
    with pytest.raises(InputError, match=r'2000 crops drawn in a row from .* cannot be used'):
        open_reader(tmp_path).read(0, 0)


def test_several_folders_and_files(music_folder, tmp_path):
    other = tmp_path / 'other.wav'
    soundfile.write(other, make_music(1, 48_000).T, 48_000)
    corpus = AudioFolder(f'{music_folder}, {other}', 44_100, CROP)
    assert [file.path.rsplit('/')[-1] for file in corpus.files] == [
        'mono.wav',
        'stereo.flac',
        'other.wav',
    ]
    assert corpus.describe() == '3 audio files, 0.1 minutes'
    assert corpus.samples == 10 * 44_100


def make_mix(tmp_path, seconds):
    """A folder a weight, each with a constant of its own number."""
    mix = []
    for number, (weight, length) in enumerate(seconds.items(), 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        soundfile.write(folder / 'a.wav', np.full(int(length * 44_100), number / 10), 44_100)
        mix.append(Collection(str(number), str(folder), weight))
    return mix


def test_collections_are_drawn_by_weight_and_not_by_length(tmp_path):
    mix = make_mix(tmp_path, {0.7: 1, 0.2: 9, 0.1: 2})
    reader = CropReader(open_collections(mix, 44_100, CROP), 0, 0.001)
    levels = [round(float(reader.read(step, step % 4)[0]), 2) for step in range(1500)]
    shares = [levels.count(level) / 1500 for level in (0.1, 0.2, 0.3)]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.035)


def test_rejection_keeps_the_weights(tmp_path):
    mix = make_mix(tmp_path, {0.75: 1, 0.25: 1})
    soundfile.write(tmp_path / '1' / 'silent.wav', np.zeros(20 * 44_100), 44_100)
    reader = CropReader(open_collections(mix, 44_100, CROP), 0, 0.001)
    levels = [round(float(reader.read(step, 0)[0]), 2) for step in range(600)]
    assert levels.count(0.1) / 600 == pytest.approx(0.75, abs=0.05)


def test_a_collection_of_no_use_is_refused_by_name(tmp_path):
    mix = make_mix(tmp_path, {0.75: 1, 0.25: 1})
    soundfile.write(tmp_path / '2' / 'a.wav', np.zeros(44_100), 44_100)
    reader = CropReader(open_collections(mix, 44_100, CROP), 0, 0.001)
    with pytest.raises(InputError, match=r"data\.mix '2': 2000 crops drawn in a row from .*/2"):
        reader.check()
    (tmp_path / '2' / 'a.wav').unlink()
    with pytest.raises(InputError, match=r"data\.mix '2': no audio files in .*/2"):
        open_collections(mix, 44_100, CROP)


def test_a_crop_can_be_located(music_folder):
    reader = open_reader(music_folder)
    place = reader.locate(3, 1)
    np.testing.assert_array_equal(only_source(reader).read(place), reader.read(3, 1))
