"""Crops of both channels."""

import jax
import numpy as np
import pytest
import soundfile

from m2l_jax.audio.planes import to_planes
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.corpus.prepare import prepare
from m2l_jax.corpus.run import RunOptions
from m2l_jax.data import resident
from m2l_jax.data.config import Collection
from m2l_jax.data.crops import CropReader
from m2l_jax.data.pipeline import read_batches
from m2l_jax.data.segments import SegmentConfig
from m2l_jax.data.sources import open_collections, open_source
from m2l_jax.interface.errors import InputError
from m2l_jax.training import mesh as meshes
from tests.conftest import make_music
from tests.data.test_pipeline import make_config

SPECTROGRAM = SpectrogramConfig()
CROP = SPECTROGRAM.samples(8)


def open_mix(folder, crop=CROP):
    return open_collections([Collection('music', str(folder), 1.0)], 44_100, crop, stereo=True)


def is_part(crop, files, tolerance=0.0):
    """True if a crop `[2, N]` is both channels of a place in a file, mono twice."""
    for audio in files:
        windows = np.lib.stride_tricks.sliding_window_view(audio[0], crop.shape[1])
        near = np.flatnonzero(np.abs(windows[:, 0] - crop[0, 0]) <= tolerance)
        for start in near:
            part = audio[:, start : start + crop.shape[1]]
            if np.abs(part - crop).max() <= tolerance:
                return True
    return False


@pytest.fixture
def sounds(music_folder):
    read = [soundfile.read(path, always_2d=True)[0].T for path in music_folder.iterdir()]
    return [np.broadcast_to(audio, (2, audio.shape[1])).astype(np.float32) for audio in read]


@pytest.mark.parametrize('layout', ['left_right', 'mid_side'])
def test_batches_hold_both_channels(music_folder, sounds, layout):
    reader = CropReader(open_mix(music_folder), 0, 0.001)
    steps, rows = range(2), range(4)
    waveforms = list(
        read_batches(reader, make_config('waveform'), SPECTROGRAM, steps, rows, layout)
    )
    assert waveforms[0].shape == (4, 2, CROP)
    assert all(is_part(crop, sounds) for batch in waveforms for crop in batch)
    config = make_config('spectrogram')
    spectrograms = read_batches(reader, config, SPECTROGRAM, steps, rows, layout)
    for waveform, spectrogram in zip(waveforms, spectrograms, strict=True):
        np.testing.assert_array_equal(spectrogram, to_planes(waveform, SPECTROGRAM, layout))


@pytest.mark.parametrize('devices', [1, 4])
def test_the_devices_cut_both_channels(music_folder, sounds, monkeypatch, devices):
    monkeypatch.setattr(resident, '_BLOCK', 4096)
    mesh, crop, batch = meshes.make_mesh(jax.devices()[:devices]), 1000, 8
    loader = resident.ResidentLoader(mesh, meshes.AXIS, crop, 0.001, audio_channels=2)
    corpus = loader.load(open_mix(music_folder, crop))
    assert corpus.blocks.shape[1] == 2 * (4096 + crop - 1)
    cut = jax.shard_map(
        lambda corpus: resident.cut_crops(corpus, jax.random.key(0), batch, crop, meshes.AXIS),
        mesh=mesh,
        in_specs=(resident.ResidentCorpus.specs(meshes.AXIS),),
        out_specs=meshes.ROWS,
    )
    crops = np.asarray(jax.jit(cut)(corpus))
    assert crops.shape == (batch, 2, crop)
    assert all(is_part(each, sounds, 0.51 / 32768) for each in crops)
    assert len(set(loader.items_of(corpus, jax.random.key(0), batch))) == 2


def test_the_level_is_of_both_channels(tmp_path):
    """√(0.5) of the louder one's, where the other is silent."""
    sound = make_music(1)[0]
    soundfile.write(tmp_path / 'a.wav', np.stack([sound, 0 * sound]).T, 44_100, subtype='FLOAT')
    place, crop = CropReader(open_mix(tmp_path), 0, 0.0)._first_usable(
        *open_mix(tmp_path)[0], step=0, row=0
    )
    rms = np.sqrt(np.mean(sound[place.start : place.start + CROP] ** 2) / 2)
    assert np.sqrt(np.mean(crop**2)) == pytest.approx(rms)
    reader = CropReader(open_mix(tmp_path), 0, 0.9)
    with pytest.raises(InputError, match=r'crops drawn in a row .*silent below RMS 0\.9'):
        reader.check()


def test_more_than_two_channels_are_left_out_by_name(music_folder, tmp_path):
    soundfile.write(music_folder / 'wide.wav', make_music(1, channels=6).T, 44_100)
    (skipped,) = open_source(str(music_folder), 44_100, CROP, stereo=True).skipped
    assert 'wide.wav has 6 channels, and a stereo model takes one or two' in skipped
    assert len(open_source(str(music_folder), 44_100, CROP).files) == 3
    alone = tmp_path / 'alone'
    alone.mkdir()
    (music_folder / 'wide.wav').rename(alone / 'wide.wav')
    with pytest.raises(InputError, match=r'none of the 1 audio files .*wide\.wav has 6 channels'):
        open_source(str(alone), 44_100, CROP, stereo=True)


def test_a_prepared_dataset_must_have_channels_together(music_folder, sounds, tmp_path):
    for name, stereo in (('apart', False), ('together', True)):
        config = SegmentConfig(44_100, 1.0, 8, 0.001, 128.0, stereo)
        prepare(str(music_folder), tmp_path / name, config, RunOptions(share='0/1'))
    with pytest.raises(
        InputError, match=r'apart was prepared with channels apart: .* --stereo, or'
    ):
        open_mix(tmp_path / 'apart')
    reader = CropReader(open_mix(tmp_path / 'together'), 0, 0.001)
    crops = [reader.read(0, row) for row in range(12)]
    assert all(is_part(crop, sounds, 0.51 / 32768) for crop in crops)
    assert {bool(np.all(crop[0] == crop[1])) for crop in crops} == {True, False}
    mono = open_collections([Collection('', str(tmp_path / 'together'), 1.0)], 44_100, CROP)
    for row in range(6):
        crop = np.broadcast_to(CropReader(mono, 0, 0.001).read(0, row), (2, CROP))
        one_by_one = [np.broadcast_to(each, (2, len(each))) for sound in sounds for each in sound]
        assert is_part(crop, one_by_one, 0.51 / 32768)
    ((_, source),) = mono
    kinds = {len(signals) for _, signals in source.items()}
    assert kinds == {1, 2}
