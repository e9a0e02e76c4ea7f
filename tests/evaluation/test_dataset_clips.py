"""Clips from TFDS datasets."""

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from m2l_jax.evaluation.clips import cut_clips
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music
from tests.data.test_audio_dataset import write_dataset


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Two sounds of 1.2 s in stereo, one of 0.3 s, and silence."""
    sounds = [make_music(1.2, channels=2, seed=seed).T for seed in range(2)]
    sounds += [make_music(0.3, channels=2).T, np.zeros((44_100, 2), np.float32)]
    audio = tfds.features.Audio(shape=(None, 2), dtype=np.float32, sample_rate=44_100)
    folder = tmp_path_factory.mktemp('sets') / 'music'
    write_dataset(folder, {'audio': audio}, [{'audio': sound} for sound in sounds])
    return folder, sounds


def test_records_are_cut_like_files(dataset):
    folder, sounds = dataset
    clips, left_out, skipped = cut_clips(f'{folder}[test]', 44_100, 0.5)
    assert [clip.name for clip in clips] == [
        f'{number:02}_other_{piece:02}' for number in range(2) for piece in range(2)
    ]
    for place, clip in enumerate(clips):
        number, piece = divmod(place, 2)
        expected = sounds[number].T[:, 22_050 * piece : 22_050 * (piece + 1)]
        np.testing.assert_array_equal(clip.waveform, expected)
    assert left_out.files == 0
    assert list(skipped) == [f'{folder}[test][2]', f'{folder}[test][3]']


def test_files_and_datasets_go_together(dataset, tmp_path):
    folder, _ = dataset
    soundfile.write(tmp_path / 'a.wav', make_music(0.6).T, 44_100)
    clips, _, _ = cut_clips(f'{folder}[test],{tmp_path / "a.wav"}', 44_100, 0.5)
    assert [clip.name for clip in clips[:2]] == ['00_a_00', '01_other_00']


def test_a_dataset_that_cannot_be_opened_is_told_in_a_line(dataset, tmp_path):
    folder, _ = dataset
    words = tfds.features.Text()
    silent = write_dataset(tmp_path / 'words', {'text': words}, [{'text': 'a'}])
    for path, message in (
        ('tfds:no_such_set', 'tfds:no_such_set is no dataset that TFDS can open'),
        (f'{silent}[test]', "has no feature 'audio'"),
        (f'{folder}[train]', "has no split 'train'"),
    ):
        with pytest.raises(InputError, match=message) as error:
            cut_clips(path, 44_100, 0.5)
        assert '\n' not in str(error.value)
