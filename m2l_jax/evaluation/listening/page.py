"""A page for listening to reconstructions beside their originals, openly and blind."""

import base64
import hashlib
import html
import io
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import matplotlib.image
import numpy as np
import soundfile

from m2l_jax.evaluation.listening.figures import (
    Figures,
    make_distance_table,
    make_plots,
    make_table,
)
from m2l_jax.evaluation.listening.stimuli import (
    ANCHORS,
    Comparison,
    anchor_filters,
    apply_filter,
    check_comparisons,
    matching_gains,
)
from m2l_jax.evaluation.spectra import HOP, power_spectrogram_db
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, replaced_file

_ASSETS = pathlib.Path(__file__).parents[2] / 'assets' / 'listening'

# Quality 8 of Vorbis, about 260 kbit/s in stereo: 30 clips of 10 s with two models take 31 MB of a
# page, and 93 MB as FLAC.
_VORBIS = {'format': 'OGG', 'subtype': 'VORBIS', 'compression_level': 0.2}
_WRITE_BLOCK = 1 << 16  # libsndfile's Vorbis encoder overflows its stack on one very long write
_LOWEST_RATE, _HIGHEST_RATE = 8000, 96_000  # that every browser decodes to

# Of the spectrograms: a JPEG has an eighth of a PNG's bytes.
_COLUMNS, _BINS_A_ROW = 600, 4
_LOWEST_DB, _HIGHEST_DB = -100, -10
_JPEG = {'format': 'jpeg', 'pil_kwargs': {'quality': 80}}


def write_page(
    folder: str | os.PathLike[str],
    clips: Sequence[Comparison],
    figures: Figures,
    title: str,
    distances: Sequence[Sequence[str]] = (),
) -> pathlib.Path:
    """Writes `index.html`, which holds all that it needs, into a folder; returns its path.

    The page plays each clip's original and reconstructions equally loud and switches between them
    at the same sample. It also runs blind tests after ITU-R BS.1534 (MUSHRA), and shows `figures`
    as a table and as plots.

    Args:
      folder: made if missing.
      clips: all of one rate, with the same models.
      figures: of `metrics.ALL_METRICS`, by model, clip and metric; models without sound, baselines
        say, may be among them.
      title: of the page.
      distances: rows of a heading and a text for each model of `figures`, for a table.

    Raises:
      InputError: if clips do not fit together, or the page cannot be written.
    """
    check_comparisons(clips)
    rate = clips[0].sample_rate
    if not is_playable(rate):
        raise InputError(
            f'clips of {rate} Hz do not play in every browser: resample them to a rate from '
            f'{_LOWEST_RATE} to {_HIGHEST_RATE} Hz'
        )
    with new_folder(folder) as made:
        page = _fill_template(clips, figures, title, distances)
        with replaced_file(made / 'index.html') as partial:
            partial.write_text(page, encoding='utf-8', errors='replace')
    return made / 'index.html'


def _fill_template(
    clips: Sequence[Comparison],
    figures: Figures,
    title: str,
    distances: Sequence[Sequence[str]],
) -> str:
    rate, models = clips[0].sample_rate, list(clips[0].reconstructions)
    filters = anchor_filters(rate)
    distance_table = make_distance_table(list(figures), distances)
    figures = {model: {} for model in models} | dict(figures)  # a model has one colour everywhere
    data = {
        'title': title,
        'rate': rate,
        'models': models,
        'anchors': [
            {'hertz': ANCHORS[name][0], 'taps': np.round(taps, 9).tolist()}
            for name, taps in filters.items()
        ],
        'clips': [_describe(clip, filters) for clip in clips],
    }
    data['key'] = hashlib.blake2b(json.dumps(data).encode(), digest_size=8).hexdigest()
    parts = {
        'title': html.escape(title),
        'style': _asset('page.css'),
        'script': _asset('player.js') + _asset('page.js'),
        'table': make_table(figures, clips[0].reconstructions),
        'distances': distance_table,
        'plots': make_plots(figures),
        'data': json.dumps(data).replace('<', r'\u003c'),  # a name may hold the end of a script
        'sounds': '\n'.join(
            f'<script type="text/plain" id="sound-{place}">{_encode(sound, rate)}</script>'
            for place, sound in _places(clips)
        ),
    }
    return re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], _asset('page.html'))


def is_playable(sample_rate: int) -> bool:
    """True for a rate in Hz that every browser decodes to."""
    return _LOWEST_RATE <= sample_rate <= _HIGHEST_RATE


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding='utf-8')


def _describe(clip: Comparison, filters: Mapping[str, np.ndarray]) -> dict:
    """A clip as the page's script reads it; gains are of original, models and anchors."""
    sounds = clip.sounds()
    anchors = [apply_filter(clip.original, taps) for taps in filters.values()]
    gains = matching_gains([*sounds, *anchors], clip.sample_rate)
    return {
        'name': clip.name,
        'gains': [float(f'{gain:.6g}') for gain in gains],
        'pictures': [_picture(sound) for sound in sounds],
    }


def _places(clips: Sequence[Comparison]) -> Iterator[tuple[str, np.ndarray]]:
    for number, clip in enumerate(clips):
        for source, sound in enumerate(clip.sounds()):
            yield f'{number}-{source}', sound


def _encode(waveform: np.ndarray, sample_rate: int) -> str:
    """A file of Ogg Vorbis, in base64."""
    content = io.BytesIO()
    with soundfile.SoundFile(content, 'w', sample_rate, len(waveform), **_VORBIS) as file:
        for begin in range(0, waveform.shape[1], _WRITE_BLOCK):
            file.write(waveform[:, begin : begin + _WRITE_BLOCK].T)
    return base64.b64encode(content.getvalue()).decode()


def _picture(waveform: np.ndarray) -> str:
    """The spectrogram of the mix, from 0 Hz to half the rate, as the address of a JPEG."""
    hop = max(HOP // 4, waveform.shape[1] // _COLUMNS)
    levels = power_spectrogram_db(waveform.mean(axis=0), hop)[:, :-1]
    rows = levels.reshape(len(levels), -1, _BINS_A_ROW).max(axis=-1).T  # [256, T]
    scale = {'vmin': _LOWEST_DB, 'vmax': _HIGHEST_DB, 'cmap': 'magma', 'origin': 'lower'}
    content = io.BytesIO()
    matplotlib.image.imsave(content, rows, **scale, **_JPEG)
    return f'data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}'
