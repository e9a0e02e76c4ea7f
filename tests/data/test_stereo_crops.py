"""Crops of both channels."""

import jax
import numpy as np
import pytest
import soundfile

from m2l_jax.audio.planes import to_planes
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.data import resident
from m2l_jax.data.config import Collection
from m2l_jax.data.crops import CropReader
from m2l_jax.data.pipeline import read_batches
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


def test_a_prepared_dataset_is_refused(tmp_path):
    (tmp_path / 'dataset_info.json').write_text('{}')
    settings = '{"sample_rate": 44100, "segment_seconds": 2.0, "crop_frames": 64, "min_rms": 0.001,'
    (tmp_path / 'job.json').write_text(f'{{"settings": {settings} "shard_megabytes": 64.0}}}}')
    with pytest.raises(InputError, match=r'was made by `prepare`, which stores channels one by on'):
        open_source(str(tmp_path), 44_100, CROP, stereo=True)
