import numpy as np
import pytest
import soundfile

from m2l_jax.audio.spectrogram import SpectrogramConfig, to_spectrogram
from m2l_jax.data.config import Collection, DataConfig
from m2l_jax.data.crops import CropReader
from m2l_jax.data.pipeline import read_batches
from m2l_jax.data.sources import open_collections
from m2l_jax.interface.errors import InputError

SPECTROGRAM = SpectrogramConfig()
FRAMES = 8


def make_config(representation, workers=2):
    return DataConfig(
        path='/music',
        mix=(),
        resident=False,
        batch_size=4,
        crop_frames=FRAMES,
        min_rms=0.001,
        representation=representation,
        workers=workers,
        prefetch=2,
    )


def open_reader(folder):
    mix = [Collection('music', str(folder), 1.0)]
    return CropReader(open_collections(mix, 44_100, SPECTROGRAM.samples(FRAMES)), 0, 0.001)


def read(folder, steps, rows, representation='waveform', workers=2):
    config = make_config(representation, workers)
    return list(read_batches(open_reader(folder), config, SPECTROGRAM, steps, rows))


def test_a_batch_holds_the_crops_of_its_step(music_folder):
    reader = open_reader(music_folder)
    batches = read(music_folder, range(3, 6), range(4))
    assert len(batches) == 3
    for step, batch in zip(range(3, 6), batches, strict=True):
        assert batch.shape == (4, SPECTROGRAM.samples(FRAMES))
        for row in range(4):
            np.testing.assert_array_equal(batch[row], reader.read(step, row))


def test_spectrograms_are_those_of_the_waveforms(music_folder):
    waveforms = read(music_folder, range(2), range(4))
    spectrograms = read(music_folder, range(2), range(4), 'spectrogram')
    for waveform, spectrogram in zip(waveforms, spectrograms, strict=True):
        assert spectrogram.shape == (4, 1024, FRAMES, 2)
        np.testing.assert_array_equal(spectrogram, to_spectrogram(waveform, SPECTROGRAM))


def test_neither_workers_nor_hosts_nor_the_start_change_a_batch(music_folder):
    whole = read(music_folder, range(5), range(4))
    many_workers = read(music_folder, range(5), range(4), workers=7)
    np.testing.assert_array_equal(whole, many_workers)
    np.testing.assert_array_equal(whole[3:], read(music_folder, range(3, 5), range(4)))
    hosts = [read(music_folder, range(5), rows) for rows in (range(2), range(2, 4))]
    np.testing.assert_array_equal(whole, np.concatenate(hosts, axis=1))


def test_a_corpus_that_runs_dry_is_refused(tmp_path):
    soundfile.write(tmp_path / 'silent.wav', np.zeros(100_000), 44_100)
    with pytest.raises(InputError, match=r'crops drawn in a row from .* cannot be used'):
        read(tmp_path, range(1), range(4))
