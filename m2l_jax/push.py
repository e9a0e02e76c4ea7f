"""Uploads a model to the Hugging Face Hub, with a card that says how it was trained.

    python -m m2l_jax.push --checkpoint=/runs/first --to=user/model --dry_run=out
    python -m m2l_jax.push --checkpoint=/runs/first --to=user/model --licence=cc-by-4.0 …
    … --data='200 hours of piano, MAESTRO 3' --evaluation=report/report.json

Others load it by `--checkpoint=hf://user/model`. Log in first with `hf auth login`, or set
`HF_TOKEN`. --dry_run writes the files into a folder, to read the card first, and uploads nothing.
Licence and data are yours to state; without them the card says "not stated".
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = command.define_checkpoint()
_TO = flags.DEFINE_string('to', None, 'Repository, user/model; made if missing.')
_LICENCE = flags.DEFINE_string('licence', None, "Of the weights, one of the Hub's: cc-by-4.0, mit.")
_DATA = flags.DEFINE_string('data', None, 'What the model was trained on, in a sentence.')
_EVALUATION = flags.DEFINE_string('evaluation', None, 'A report.json of m2l_jax.evaluate.')
_CARD = flags.DEFINE_string(
    'card',
    None,
    'Markdown file for the card, with fields for the Hub on top if you like, or `new`. Without it '
    'a README.md that the repository has is kept.',
)
_STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16'], 'Of the numbers in the file.'
)
_PRIVATE = flags.DEFINE_boolean('private', False, 'Make the repository a private one.')
_REVISION = flags.DEFINE_string('revision', None, 'Branch; made if missing.')
_MESSAGE = flags.DEFINE_string('message', None, 'Of the commit.')
_DRY_RUN = flags.DEFINE_string('dry_run', None, 'Folder for the files; nothing is uploaded then.')
flags.mark_flags_as_required(['checkpoint', 'to'])


def main() -> None:
    """Parses the flags and uploads."""
    from m2l_jax.interface.errors import InputError
    from m2l_jax.sharing.push import push_to_hub

    try:
        named = _CARD.value not in (None, 'new')
        card = pathlib.Path(_CARD.value).read_text('utf-8-sig') if named else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'--card={_CARD.value} cannot be read ({error}): pass a file') from None
    where = push_to_hub(
        _CHECKPOINT.value,
        _TO.value,
        card={} if _CARD.value == 'new' else card,
        licence=_LICENCE.value,
        data=_DATA.value,
        evaluation=_EVALUATION.value,
        storage=_STORAGE.value,
        private=_PRIVATE.value,
        revision=_REVISION.value,
        message=_MESSAGE.value,
        dry_run=_DRY_RUN.value,
    )
    print(f'{_CHECKPOINT.value} -> {where}')


if __name__ == '__main__':
    command.run(main)
