"""Samples after resampling: one number, whoever asks and however the file is read."""

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels
from m2l_jax.corpus.inputs import AudioSource
from m2l_jax.corpus.plan import Item

_RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)


def _random_triples():
    """Samples, the file's rate, and the rate that is wanted."""
    random = np.random.default_rng(0)
    for _ in range(180):
        source, wanted = random.choice(_RATES, 2, replace=False)
        yield int(random.integers(1_000, 60_000)), int(source), int(wanted)


def test_commands_and_python_agree(tmp_path):
    path, lengths, expected = tmp_path / 'a.wav', [], []
    for samples, source, wanted in _random_triples():
        soundfile.write(path, np.random.default_rng(samples).uniform(-0.5, 0.5, samples), source)
        command = AudioSource(Item('a', str(path), 0))
        length, channels, _ = command.describe(wanted)
        blocks = command.blocks(wanted, 7_000, Levels())
        lengths.append(
            (
                length,
                sum(block.shape[1] for block in blocks),
                files.read(path, wanted).shape[1],
                files.resample(np.zeros((channels, samples), np.float32), source, wanted).shape[1],
            )
        )
        expected.append((samples * wanted // source,) * 4)
    assert lengths == expected


@pytest.mark.parametrize(
    ('source', 'wanted'), [(48_000, 44_100), (16_000, 44_100), (44_101, 48_000)]
)
def test_a_part_ends_where_the_whole_does(tmp_path, source, wanted):
    path = tmp_path / 'a.wav'
    for samples in range(30_000, 30_010):
        soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, samples), source)
        whole = files.read(path, wanted)
        length = whole.shape[1]
        part = files.read(path, wanted, length - 500, 500)
        np.testing.assert_allclose(part, whole[:, -500:], atol=1e-5)
        with pytest.raises(files.InputError, match='ends after'):
            files.read(path, wanted, length - 500, 501)
