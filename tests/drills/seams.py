"""Can joins of decoded chunks be heard?

    python -m tests.drills.seams --checkpoint=DIR --audio=/data/music --picture=seams.png

Joins recordings to one piece, encodes it whole, and decodes it in one piece, in chunks that fade
into each other over --overlap seconds, and in chunks with blunt ends, as the PyTorch package does.
Prints JSON: how joins rank among what is inside chunks (see `tests.drills.joins`), with the chunks
put end to end as a control, which must stand out; how alike consecutive chunks are where they
overlap, on which the right fade depends; and the loss of level in the middle of a fade.
Without --checkpoint the weights are random.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from benchmarks import report, small_model
from m2l_jax.audio import files
from m2l_jax.codec.batches import latent_rows
from m2l_jax.codec.chunks import Chunk, Chunking
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.pictures import draw_comparison, save_picture
from m2l_jax.interface.paths import to_json
from m2l_jax.model.autoencoder import Music2Latent
from tests.drills import joins

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Model; random weights without.')
_AUDIO = flags.DEFINE_string('audio', 'm2l_jax/assets', 'Recordings, of which the first are taken.')
_SECONDS = flags.DEFINE_float('seconds', 180, 'Of the piece.')
_CHUNK_SECONDS = flags.DEFINE_float('chunk_seconds', 20, 'Of a chunk.')
_OVERLAP = flags.DEFINE_float('overlap', 2, 'Seconds, as the default of decoding.')
_PICTURE = flags.DEFINE_string('picture', None, 'PNG to draw: one piece above chunks, at a join.')
_JSON = flags.DEFINE_string('json', None, 'File to write the result to as well.')

_PICTURE_SECONDS = 2.5  # on each side of the middle of a fade


def main(_):
    """Decodes, and prints the figures."""
    use_compile_cache()
    codec = _open_codec()
    rate = codec.config.spectrogram.sample_rate
    audio = _read_piece(rate)
    whole_length = audio.shape[1]
    latents = codec.encode(audio, max_waveform_length=whole_length)
    one_piece = codec.decode(latents, max_waveform_length=whole_length)[0]
    size = round(_CHUNK_SECONDS.value * rate)
    blunt = codec.chunking(size)
    fading = codec.chunking(size, round(_OVERLAP.value * rate))
    blunt_chunks, fading_chunks = (c.cut(latents.shape[2]) for c in (blunt, fading))
    blunt_parts = _decode(codec, latents, blunt, blunt_chunks)
    fading_parts = _decode(codec, latents, fading, fading_chunks)
    step = codec.samples_per_latent
    faded = _join(codec, fading_parts, fading, fading_chunks)
    borders = [chunk.begin * step for chunk in blunt_chunks[1:]]
    fades = _fades(codec, fading_chunks)
    around_fades = [place for begin, end in fades for place in (begin, (begin + end) // 2, end)]
    result = {
        **report.describe_machine(),
        'model': _CHECKPOINT.value or 'random',
        'seconds': _SECONDS.value,
        'overlap': _measure(faded, around_fades),
        'overlap_0': _measure(_join(codec, blunt_parts, blunt, blunt_chunks), borders),
        'one_piece_at_the_same_places': _measure(one_piece, around_fades),
        'end_to_end': _measure(_put_end_to_end(codec, blunt_parts, blunt_chunks), borders),
        'in_overlaps': _compare(codec, fading_parts, fading_chunks, faded),
    }
    text = to_json(result)
    print(text)
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(text + '\n')
    if _PICTURE.value:
        _draw(one_piece, faded, fades[len(fades) // 2], rate)


def _open_codec() -> EncoderDecoder:
    if _CHECKPOINT.value:
        return EncoderDecoder(_CHECKPOINT.value)
    model = Music2Latent(small_model.CONFIG)
    return EncoderDecoder.from_params(model, small_model.random_params())


def _read_piece(sample_rate: int) -> np.ndarray:
    """`[1, samples]`, the first channels of recordings one after another, again if need be."""
    wanted = round(_SECONDS.value * sample_rate)
    parts, samples = [], 0
    paths, _ = files.search(_AUDIO.value)
    while samples < wanted:
        parts.append(files.read(paths[len(parts) % len(paths)], sample_rate)[:1])
        samples += parts[-1].shape[1]
    return np.concatenate(parts, axis=1)[:, :wanted]


def _decode(
    codec: EncoderDecoder, latents: np.ndarray, chunking: Chunking, chunks: Sequence[Chunk]
) -> list[np.ndarray]:
    """What each chunk gives, before it is joined to others."""
    rows = latent_rows(latents, chunks)
    return [part[None] for part in codec.decode_rows(rows, chunking, 1, steps=1, seed=0)]


def _join(
    codec: EncoderDecoder, parts: list[np.ndarray], chunking: Chunking, chunks: Sequence[Chunk]
) -> np.ndarray:
    return np.concatenate(list(codec.join(parts, chunks, chunking)), axis=1)[0]


def _put_end_to_end(
    codec: EncoderDecoder, parts: list[np.ndarray], chunks: Sequence[Chunk]
) -> np.ndarray:
    step = codec.samples_per_latent
    kept = zip(parts, chunks, strict=True)
    return np.concatenate([part[0, : chunk.kept * step] for part, chunk in kept])


def _fades(codec: EncoderDecoder, chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    """The samples from which and to which each chunk fades into the next."""
    step, reach = codec.samples_per_latent, codec.reach
    overlap = chunks[0].end - chunks[1].begin
    length = overlap * step - reach
    return [(chunk.end * step - length, chunk.end * step) for chunk in chunks[:-1]]


def _measure(waveform: np.ndarray, places: Sequence[int]) -> dict[str, dict[str, float]]:
    """Both measures at the places, of which one may lie at each frame of the STFT's reach."""
    width = 6 * joins.FRAME
    return {
        measure.__name__: joins.rank(measure(waveform), places, width).describe()
        for measure in (joins.clicks, joins.changes)
    }


def _compare(
    codec: EncoderDecoder,
    parts: Sequence[np.ndarray],
    chunks: Sequence[Chunk],
    joined: np.ndarray,
) -> dict[str, list[float]]:
    """How alike chunks are where they overlap, and the level in the middle against theirs, in dB.

    Two of one level and of correlation r lose 10·log10((1 + r)/2) in the middle of a linear fade:
    nothing if they are the same, 3 dB if they have nothing in common.
    """
    step = codec.samples_per_latent
    correlations, dips = [], []
    for number, (begin, end) in enumerate(_fades(codec, chunks)):
        before = parts[number][0, begin - chunks[number].begin * step :][: end - begin]
        after = parts[number + 1][0, begin - chunks[number + 1].begin * step :][: end - begin]
        middle = slice((end - begin) * 3 // 8, (end - begin) * 5 // 8)
        powers = [np.mean(part[middle] ** 2) for part in (before, after)]
        power = np.mean(joined[begin:end][middle] ** 2)
        correlations.append(round(float(np.corrcoef(before, after)[0, 1]), 4))
        dips.append(round(float(10 * np.log10(power / np.mean(powers))), 3))
    return {'correlations': correlations, 'level_in_the_middle_db': dips}


def _draw(
    one_piece: np.ndarray, joined: np.ndarray, fade: tuple[int, int], sample_rate: int
) -> None:
    middle, reach = sum(fade) // 2, round(_PICTURE_SECONDS * sample_rate)
    stretch = slice(max(0, middle - reach), middle + reach)
    title = f'In one piece, and in chunks that fade over {_OVERLAP.value:g} s in the middle'
    figure = draw_comparison(one_piece[None, stretch], joined[None, stretch], sample_rate, title)
    save_picture(_PICTURE.value, figure)


if __name__ == '__main__':
    app.run(main)
