"""Export of blind listening tests for webMUSHRA, which collects many listeners' ratings."""

import contextlib
import html
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from m2l_jax.audio import files
from m2l_jax.evaluation.listening.stimuli import (
    ANCHORS,
    Comparison,
    anchor_filters,
    apply_filter,
    check_comparisons,
    matching_gains,
)
from m2l_jax.interface.paths import new_folder, replaced_file

_REFERENCE = 'reference'

# Most that webMUSHRA takes unless its check of the recommendation is off.
_STRICT_SECONDS, _STRICT_CONDITIONS = 12, 12

_LONGEST_NAME = 60
_INSTRUCTION = (
    'Rate the quality of each condition compared with the reference. One of them is the reference '
    'itself: rate it 100.'
)


def write_webmushra(
    folder: str | os.PathLike[str], clips: Sequence[Comparison], title: str
) -> pathlib.Path:
    """Writes a blind test for webMUSHRA; returns the path of its configuration.

    webMUSHRA (Schoeffler et al. 2018) runs on a server with PHP. Copy the content of `folder` into
    its root and open `?config=NAME.yaml`. All sounds of a clip have the original's loudness. The
    anchors are files under the names that webMUSHRA gives its own, which exist at few rates only.

    Args:
      folder: gets `configs/NAME.yaml` and `configs/resources/NAME/*.wav`; NAME is made of the
        title. Made if missing.
      clips: as for `listening.write_page`.
      title: of the test.

    Raises:
      InputError: if clips do not fit together, or a file cannot be written: then none is left.
    """
    check_comparisons(clips)
    name = file_name(title, set())
    config = pathlib.Path(folder, 'configs', f'{name}.yaml')
    resources = f'configs/resources/{name}'
    anchors = anchor_filters(clips[0].sample_rate)
    taken = {_REFERENCE, *ANCHORS}
    models = [file_name(model, taken) for model in clips[0].reconstructions]
    keys = [_REFERENCE, *models, *anchors]
    lines = _head(name, title)
    with new_folder(pathlib.Path(folder, resources)) as made, _all_or_none() as written:
        written.append(config)  # it is written last
        for number, clip in enumerate(clips):
            stem = f'{number:02}_{file_name(clip.name, set())}'
            sounds = clip.sounds()
            sounds += [apply_filter(clip.original, taps) for taps in anchors.values()]
            gains = matching_gains(sounds, clip.sample_rate)
            for key, sound, gain in zip(keys, sounds, gains, strict=True):
                written.append(made / f'{stem}.{key}.wav')
                files.write(written[-1], gain * sound, clip.sample_rate)
            paths = {key: f'{resources}/{stem}.{key}.wav' for key in keys}
            lines += _page(stem, clip, paths)
        with replaced_file(config) as partial:
            partial.write_text('\n'.join([*lines, *_TAIL, '']), encoding='utf-8')
    return config


def _head(name: str, title: str) -> list[str]:
    return [
        f'testname: {_quote(title)}',
        f'testId: {_quote(name)}',
        'bufferSize: 2048',
        'stopOnErrors: true',
        'showButtonPreviousPage: true',
        'remoteService: service/write.php',
        'pages:',
        '    -',
        '        - random',
    ]


def _page(stem: str, clip: Comparison, paths: Mapping[str, str]) -> list[str]:
    """The lines of a trial; `paths` of sounds by the condition's name, the reference first."""
    (_, reference), *conditions = paths.items()
    seconds = clip.original.shape[1] / clip.sample_rate
    is_strict = seconds <= _STRICT_SECONDS and len(conditions) <= _STRICT_CONDITIONS
    fields = {
        'id': _quote(stem),
        'name': _quote(html.escape(clip.name)),
        'content': _quote(_INSTRUCTION),
        'showWaveform': 'true',
        'enableLooping': 'true',
        'strict': 'true' if is_strict else 'false',
        'randomize': 'true',
        'showConditionNames': 'false',
        'reference': _quote(reference),
        'createAnchor35': 'false',
        'createAnchor70': 'false',
    }
    return [
        '        - type: mushra',
        *(f'          {field}: {value}' for field, value in fields.items()),
        '          stimuli:',
        *(f'              {_quote(key)}: {_quote(path)}' for key, path in conditions),
    ]


_TAIL = (
    '    - type: finish',
    '      name: "Thank you"',
    '      content: "Send your ratings with the button below."',
    '      popupContent: "Your ratings were sent."',
    '      showResults: true',
    '      writeResults: true',
)


def _quote(text: str) -> str:
    """A scalar of YAML on one line."""
    return json.dumps(text, ensure_ascii=False)


def file_name(name: str, taken: set[str]) -> str:
    """A part of a file's name: letters, digits, `_`, `.` and `-`; it is added to those taken."""
    base = re.sub(r'[^A-Za-z0-9_.-]+', '_', name).strip('._')[:_LONGEST_NAME] or 'unnamed'
    number, unique = 1, base
    while unique in taken:
        number += 1
        unique = f'{base}_{number}'
    taken.add(unique)
    return unique


@contextlib.contextmanager
def _all_or_none() -> Iterator[list[pathlib.Path]]:
    """Yields a list for the files that are written, which are removed after an error."""
    written: list[pathlib.Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
