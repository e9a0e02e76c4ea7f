"""That joins are not heard, by measures which hear what is wrong on purpose."""

import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.codec.batches import latent_rows
from m2l_jax.codec.chunks import Chunking, join_waveforms
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.model.autoencoder import Music2Latent
from tests.conftest import make_music
from tests.drills import joins

RATE = 44_100
STEP, REACH = 1024, 1536
WIDTH = 6 * joins.FRAME
CHUNKING = Chunking(128, 16)
MEASURES = (joins.clicks, joins.changes)


@pytest.fixture(scope='module')
def music():
    return make_music(8)[0]


def ranked(waveform, places):
    return [joins.rank(measure(waveform), places, WIDTH) for measure in MEASURES]


def fade_places(chunks):
    """The samples at which each fade begins, is at its middle, and ends."""
    length = CHUNKING.overlap * STEP - REACH
    ends = [chunk.end * STEP for chunk in chunks[:-1]]
    return [end - back for end in ends for back in (length, length // 2, 0)]


def test_nothing_stands_out_of_music_that_was_not_cut(music):
    places = [round(seconds * RATE) for seconds in (1.33, 2.6, 3.87, 5.14, 6.4)]
    for ranking in ranked(music, places):
        assert ranking.largest.max() <= ranking.inside.max()
        assert 5 < np.median(ranking.percentiles) < 95


def test_clicks_are_heard(music):
    places = [round(seconds * RATE) for seconds in (1.33, 3.87, 6.4)]
    clicked = music.copy()
    for place in places:
        clicked[place:] += 0.2  # more than an onset
    clicks, _ = ranked(clicked, places)
    assert np.all(clicks.percentiles == 100)


def test_a_sudden_change_of_sound_is_heard(music):
    place = round(3.87 * RATE)
    dull = np.convolve(music, np.ones(50) / 50, 'same')
    _, changes = ranked(np.concatenate([music[:place], dull[place:]]), [place])
    assert np.all(changes.percentiles == 100)


def test_ranks_are_of_what_lies_between():
    values = np.arange(100.0)
    ranking = joins.rank(values, [50 * joins.FRAME], 2 * joins.FRAME)
    assert ranking.largest.tolist() == [52]
    # Stretches of five frames, not at the very ends, but for those that share one with the join.
    assert ranking.inside.tolist() == [*range(9, 48, 5), *range(59, 94, 5)]
    assert ranking.percentiles.tolist() == [100 * 8 / 15]


def test_chunks_of_other_levels_fade_into_each_other_unheard(music):
    """As music would be decoded whose chunks are normalised apart: 1 dB up and down."""
    total = (len(music) - REACH) // STEP
    chunks = CHUNKING.cut(total)
    random = np.random.default_rng(0)
    parts = []
    for number, chunk in enumerate(chunks):
        part = music[None, chunk.begin * STEP : chunk.end * STEP + REACH]
        noise = 0.003 * random.standard_normal(part.shape)
        parts.append((part * 10 ** ((-1) ** number / 20) + noise).astype(np.float32))
    blocks = join_waveforms(parts, chunks, CHUNKING.overlap, STEP, REACH)
    joined = np.concatenate(list(blocks), axis=1)[0]
    for ranking in ranked(joined, fade_places(chunks)):
        assert ranking.largest.max() <= ranking.inside.max()
        assert np.median(ranking.percentiles) < 75


def test_what_a_model_decodes_in_chunks_is_joined_unheard():
    codec = EncoderDecoder.from_params(
        Music2Latent(small_model.CONFIG), small_model.random_params()
    )
    latents = np.random.default_rng(0).standard_normal((1, 8, 400)).astype(np.float32)
    chunks = CHUNKING.cut(400)
    rows = codec.decode_rows(latent_rows(latents, chunks), CHUNKING, 1, steps=1, seed=0)
    parts = [row[None] for row in rows]
    joined = np.concatenate(list(codec.join(parts, chunks, CHUNKING)), axis=1)[0]
    for ranking in ranked(joined, fade_places(chunks)):
        assert ranking.largest.max() <= ranking.inside.max()
        assert np.median(ranking.percentiles) < 75
    # Of the same noise and nearly the same latents, they are alike enough to fade linearly.
    overlap = CHUNKING.overlap * STEP
    for before, after, chunk in zip(parts, parts[1:-1], chunks, strict=False):
        tail = before[0, chunk.kept * STEP - overlap : chunk.kept * STEP]
        assert np.corrcoef(tail, after[0, :overlap])[0, 1] > 0.95
    bluntly = np.concatenate([part[0, : 112 * STEP] for part in parts[:-1]])
    _, changes = ranked(bluntly, [112 * STEP * number for number in range(1, len(parts) - 1)])
    assert np.median(changes.percentiles) == 100
