"""The card of a model: a README that people and the Hugging Face Hub read."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.repocard import ModelCard

from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.settings import differences
from m2l_jax.model.config import ModelConfig
from m2l_jax.sharing.evaluations import Evaluation
from m2l_jax.sharing.history import History
from m2l_jax.torch_weights.hub import Place

CURVES = 'curves.png'
LIBRARY = 'm2l_jax'

_TAGS = ['audio', 'music', 'autoencoder', 'consistency-model', 'music2latent', 'jax', 'flax']
_NOT_STATED = 'not stated'
_EACH, _BOTH = 'any number; each is encoded by itself', 'two, encoded together; mono fills both'


@dataclasses.dataclass(frozen=True)
class Subject:
    """All that a card is about.

    Attributes:
      place: of the model in the Hub.
      config: of the model.
      parameters: their number.
      storage: of the numbers in the file.
      history: of the training; None if it is not known.
      evaluation: None without one.
      licence: of the weights, an identifier of the Hub's such as 'cc-by-4.0'; None if not stated.
      data: what the model was trained on; None if not stated.
    """

    place: Place
    config: ModelConfig
    parameters: int
    storage: str
    history: History | None
    evaluation: Evaluation | None
    licence: str | None = None
    data: str | None = None


def write_card(subject: Subject, card: Mapping[str, Any] | str | None) -> str:
    """Writes a card, with fields for the Hub on top.

    Args:
      subject: see there.
      card: further fields, or a text in Markdown, which may have fields on top.

    Raises:
      InputError: if the fields cannot be read or written, or name another licence.
    """
    fields, text = _read_extra(card)
    licence = _choose_licence(subject.licence, fields.get('license'))
    evaluation, history = subject.evaluation, subject.history
    try:
        data = ModelCardData(
            **{
                'license': subject.licence,
                'library_name': LIBRARY,
                'pipeline_tag': 'audio-to-audio',
                'tags': _TAGS,
                'base_model': history and history.base,
                'model_name': subject.place.repository.partition('/')[2],
                'eval_results': (evaluation and evaluation.results) or None,
                **fields,
            }
        )
        if data.eval_results is None:
            del data.model_name  # of the results alone
        top = data.to_yaml()
    except Exception as error:  # the Hub's or YAML's own
        raise InputError(f'the fields of the card cannot be used: {first_line(error)}') from None
    parts = [f'# {subject.place.repository.partition("/")[2]}', _INTRODUCTION]
    parts += [text] if text else []
    parts += [_describe_model(subject), '## Use', _describe_use(subject)]
    parts += ['## Training', _describe_training(subject, licence)]
    if evaluation is not None:
        parts += ['## Evaluation', f'{evaluation.description}. In brackets: intervals of 95 %.']
        parts += [_table(evaluation.rows)]
    if history is not None:
        rows = [(f'`{name}`', _as_code(value)) for name, value in history.fields.items()]
        table = _table([('field', 'value'), *rows])
        parts += [
            f'<details><summary>All settings of the training</summary>\n\n{table}\n\n</details>'
        ]
    return f'---\n{top}\n---\n\n' + '\n\n'.join(parts) + '\n'


_INTRODUCTION = (
    'A consistency autoencoder of audio, [Music2Latent](https://arxiv.org/abs/2408.06500), in the '
    'format of `m2l_jax`.'
)


def _read_extra(card: Mapping[str, Any] | str | None) -> tuple[dict[str, Any], str]:
    """The fields and the text of what a user gives."""
    if card is None or isinstance(card, Mapping):
        return dict(card or {}), ''
    if not isinstance(card, str):
        raise InputError(f'card={card!r} must be fields or a text')
    card = card.removeprefix('\ufeff')  # of some editors' files
    try:
        read = ModelCard(card) if card.lstrip().startswith('---') else None
    except Exception as error:  # the Hub's or YAML's own
        raise InputError(f'the fields of the card cannot be read: {first_line(error)}') from None
    return (read.data.to_dict(), read.text.strip()) if read else ({}, card.strip())


def _choose_licence(given: str | None, field: Any) -> str | None:
    """The licence as the card's text names it; `field` is that of the card's fields."""
    if isinstance(field, list | tuple):
        field = ', '.join(map(str, field))
    for licence in (given, field):
        if not isinstance(licence, str | None):
            raise InputError(f'the licence {licence!r} of the card must be a text')
    if given and field and given != field:
        raise InputError(f'the card has license: {field}, but the licence is {given}: pass one')
    return given or field


def _describe_model(subject: Subject) -> str:
    config = subject.config
    rate, step = config.spectrogram.sample_rate, config.samples_per_latent
    vectors, width = rate / step, config.latent_channels
    together = config.audio_channels
    each = ' and channel' if together == 1 else ''
    further = []
    if config.is_discrete:
        rate_of_tokens = vectors * width * math.log2(config.levels) / 1000
        tokens = f'or one of {config.levels} values for each number, {rate_of_tokens:.3g} kbit/s'
        further.append(('tokens', tokens + (' a channel' if together == 1 else '')))
    if config.latents_of:
        further.append(('decodes latents of', ', '.join(config.latents_of)))
    return _table(
        [
            ('', ''),
            ('parameters', f'{subject.parameters:,}, stored as {subject.storage}'),
            ('sample rate', f'{rate:,} Hz'),
            ('audio channels', _EACH if together == 1 else _BOTH),
            ('latents', f'{vectors:.4g} vectors a second{each}, of {width} numbers each'),
            ('compression', f'{together * step / width:.4g} samples of audio for each number'),
            *further,
        ]
    )


def _describe_use(subject: Subject) -> str:
    place, config = subject.place, subject.config
    revision = f', revision={place.revision!r}' if place.revision else ''
    width, rate = config.latent_channels, config.spectrogram.sample_rate
    sequences, channels = ('channels',) * 2 if config.audio_channels == 1 else (1, 2)
    text = f"""```python
from m2l_jax import EncoderDecoder

codec = EncoderDecoder.from_pretrained({place.repository!r}{revision})
latents = codec.encode('song.flac')  # [{sequences}, {width}, frames]
restored = codec.decode(latents)  # [{channels}, samples], {rate:,} Hz
```"""
    if not differences(ModelConfig(), config.defining):  # the one size that the package has
        text += f"""

With the PyTorch package, after `python -m m2l_jax.convert --from={place} --to=model.pt`:

```python
from music2latent import EncoderDecoder

codec = EncoderDecoder(load_path_inference='model.pt')
```"""
    return text


def _describe_training(subject: Subject, licence: str | None) -> str:
    history = subject.history
    rows = [
        ('data', subject.data or _NOT_STATED),
        ('licence of the weights', licence or _NOT_STATED),
    ]
    if history is None:
        return _table([('', ''), *rows, ('training', _NOT_STATED)])
    settings = history.settings
    seconds = settings.crop_samples / settings.model.spectrogram.sample_rate
    rows += [
        ('steps', f'{history.steps:,} of {settings.train.steps:,}'),
        ('batch', f'{settings.data.batch_size:,} crops of {seconds:.3g} s'),
        ('audio', f'{_hours(history.audio_hours)} of crops'),
    ]
    if history.hours is not None:
        rows += [('time', f'{_hours(history.hours)}, without pauses and evaluations')]
    rows += [('started from', history.origin)]
    picture = f'\n\n![Curves of the training]({CURVES})' if history.curves else ''
    return _table([('', ''), *rows]) + picture


def _hours(hours: float) -> str:
    return (f'{hours:,.0f}' if hours >= 100 else f'{hours:.3g}') + ' hours'


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table in Markdown; the first one is its header."""
    lines = ['| ' + ' | '.join(_escape(cell) for cell in row) + ' |' for row in rows]
    lines.insert(1, '|---' * len(rows[0]) + '|')
    return '\n'.join(lines)


def _escape(cell: str) -> str:
    return ' '.join(cell.split()).replace('|', '\\|').replace('<', '&lt;')


def _as_code(value: Any) -> str:
    """A value as JSON, where Markdown keeps all characters but escapes none."""
    return '`' + json.dumps(value).replace('<', r'\u003c').replace('`', r'\u0060') + '`'
