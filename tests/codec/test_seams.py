import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.audio.spectrogram import SpectrogramConfig, synthesise, to_spectrogram, to_waveform
from m2l_jax.codec.chunks import Chunking, join_latents, join_waveforms
from tests.conftest import make_music

STEP, REACH = 4096, 1536


@pytest.mark.parametrize('total', [10, 17, 18, 31])
def test_parts_of_one_waveform_join_to_that_waveform(total):
    whole = np.random.default_rng(0).uniform(-0.9, 0.9, (2, total * STEP + REACH))
    whole = whole.astype(np.float32)
    chunks = Chunking(10, 3).cut(total)
    parts = [whole[:, c.begin * STEP : c.end * STEP + REACH] for c in chunks]
    blocks = list(join_waveforms(parts, chunks, 3, STEP, REACH))
    assert len(blocks) == len(chunks) + 1  # and the end
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, atol=1e-6)


def test_chunks_fade_from_one_to_the_next():
    chunks = Chunking(10, 3).cut(17)
    parts = [np.full((1, 10 * STEP + REACH), value, np.float32) for value in (0, 1)]
    joined = np.concatenate(list(join_waveforms(parts, chunks, 3, STEP, REACH)), axis=1)[0]
    assert not joined[: 7 * STEP + REACH].any()
    assert np.all(joined[10 * STEP :] == 1)
    slope = np.diff(joined[7 * STEP + REACH : 10 * STEP])
    np.testing.assert_allclose(slope, 1 / (3 * STEP - REACH), rtol=0.01)


def test_blunt_ends_give_what_one_spectrogram_gives():
    config = SpectrogramConfig()
    spectrogram = to_spectrogram(jnp.asarray(make_music(1.5)), config)[:, :, : 15 * 8]
    chunks = Chunking(6).cut(15)
    parts = [
        np.asarray(synthesise(spectrogram[:, :, c.begin * 8 : c.end * 8], config)) for c in chunks
    ]
    joined = np.concatenate(list(join_waveforms(parts, chunks, 0, STEP, REACH)), axis=1)
    np.testing.assert_allclose(joined, to_waveform(spectrogram, config), atol=1e-6)


def test_each_chunk_gives_the_half_of_an_overlap_that_is_farther_from_its_end():
    chunks = Chunking(10, 4).cut(18)  # 0-10, 6-16, 8-18
    parts = [np.arange(c.begin, c.end)[None] + 100 * n for n, c in enumerate(chunks)]
    joined = join_latents(parts, chunks, 4)[0]
    np.testing.assert_array_equal(joined % 100, np.arange(18))
    np.testing.assert_array_equal(joined // 100, [0] * 8 + [1] * 6 + [2] * 4)


def test_what_completes_the_last_chunk_is_left_out():
    chunks = Chunking(10).cut(13)
    parts = [c.positions[None] for c in chunks]
    np.testing.assert_array_equal(join_latents(parts, chunks)[0], np.arange(13))
