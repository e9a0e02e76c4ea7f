"""Uploads models to the Hugging Face Hub, with a card."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import huggingface_hub
import jax
import numpy as np
from huggingface_hub import CommitOperationAdd, ModelCard, errors

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.weights import holds_weights, is_packaged, open_weights
from m2l_jax.evaluation.pictures import draw_curves, save_picture
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, replaced_file
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.sharing.card import CURVES, LIBRARY, Subject, write_card
from m2l_jax.sharing.evaluations import read_evaluation
from m2l_jax.sharing.history import History, read_history
from m2l_jax.torch_weights import hub
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model

_README = 'README.md'

_logger = logging.getLogger(__name__)


def push_to_hub(
    run: str | os.PathLike[str],
    repository: str,
    *,
    card: Mapping[str, Any] | str | None = None,
    licence: str | None = None,
    data: str | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    storage: str = 'float32',
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    dry_run: str | os.PathLike[str] | None = None,
) -> str:
    """Uploads a model as `model.safetensors`, with a card and curves, in one commit.

    The repository is made if it is missing. Without `card` a README.md that is there is kept, and
    one with files whose README.md doesn't say `library_name: m2l_jax` is refused. The token is that
    of `hf auth login` or `HF_TOKEN`.

    Args:
      run: a training run or one of its checkpoints; or another model, as `EncoderDecoder` has it.
      repository: 'user/model'.
      card: fields for the Hub, or a text in Markdown, which may have such fields on top.
      licence: of the weights, e.g. 'cc-by-4.0'; that of the released model is filled in.
      data: what the model was trained on, in a sentence.
      evaluation: a `report.json` of `m2l_jax.evaluate`, of this model.
      storage: of the numbers in the file, 'float32' or 'float16'.
      private: makes the repository a private one.
      revision: branch to upload to, made if missing; None for the main branch.
      message: of the commit.
      dry_run: a folder to write the files to instead of uploading them.

    Returns:
      The address of the commit, or the folder.

    Raises:
      InputError: if the model cannot be read, holds numbers that are not finite or is none that the
        PyTorch package has a name for; for a report of another model, or a licence that is not the
        model's; for licence, data or evaluation where a README.md is kept; if the Hub refuses.
    """
    facts = {'licence': licence, 'data': data, 'evaluation': evaluation}
    facts = [name for name, value in facts.items() if value is not None]
    for name, value in (('licence', licence), ('data', data)):
        if not isinstance(value, str | None):
            raise InputError(f'{name}={value!r} must be a text')
    known = hub.known_licence(run)
    if known and licence not in (None, known):
        raise InputError(f'{run} is under {known}: leave out licence={licence!r}')
    place = hub.parse_with_revision(repository, revision)
    if place.file is not None:
        raise InputError(f'{repository} must be user/model: pass a branch as revision')
    if dry_run is not None:
        _refuse_existing(pathlib.Path(dry_run))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subject = _write_weights(folder, run, place, storage, evaluation)
        text = write_card(dataclasses.replace(subject, licence=licence or known, data=data), card)
        (folder / _README).write_text(text, encoding='utf-8')
        if dry_run is not None:
            return _copy_files(folder, dry_run)
        with hub.quiet_hub(), _explained(place):
            found = _find(huggingface_hub.HfApi(), place)
            keeps_card = found is not None and card is None and _keeps_card(found, place, facts)
            if keeps_card:
                (folder / _README).unlink()
            return _upload(folder, place, found, private, message or 'Upload with m2l_jax')


def _write_weights(
    folder: pathlib.Path,
    run: str | os.PathLike[str],
    place: hub.Place,
    storage: str,
    evaluation: str | os.PathLike[str] | None,
) -> Subject:
    """Writes weights and curves, see `push_to_hub`; the weights are read again."""
    history = _history_of(run)
    model, params = open_weights(run if history is None else history.checkpoint)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(params))):
        raise InputError(f'{run} holds numbers that are not finite: its training diverged')
    weights = folder / hub.WEIGHTS
    save_torch_model(weights, model.config, params, storage=storage)
    stored = load_torch_model(weights)
    report = None
    if evaluation is not None:
        report = read_evaluation(evaluation, {_fingerprint(model, params), _fingerprint(*stored)})
    if history is not None and history.curves:
        save_picture(folder / CURVES, draw_curves(history.curves, place.repository))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Subject(place, model.config, count, storage, history, report)


def _history_of(run: str | os.PathLike[str]) -> History | None:
    """The training of a run's folder; None for other models."""
    path = pathlib.Path(run)
    if hub.is_address(run) or is_packaged(run) or not path.is_dir() or holds_weights(path):
        return None
    return read_history(os.fspath(run))


def _fingerprint(model: Music2Latent, params: Params) -> str:
    return EncoderDecoder.from_params(model, params).model_id


def _refuse_existing(folder: pathlib.Path) -> None:
    for name in (hub.WEIGHTS, _README, CURVES):
        if (folder / name).exists():
            raise InputError(f'{folder} holds {name} already: choose another folder')


def _copy_files(folder: pathlib.Path, target: str | os.PathLike[str]) -> str:
    with new_folder(target) as made:
        for path in folder.iterdir():
            with replaced_file(made / path.name) as partial:
                shutil.copyfile(path, partial)
    return os.fspath(target)


def _keeps_card(found: huggingface_hub.ModelInfo, place: hub.Place, facts: list[str]) -> bool:
    """True if the repository has a README.md, which stays; see `push_to_hub`.

    Raises:
      InputError: if it may hold another model, or `facts` were passed for a new card.
    """
    there = {each.rfilename for each in found.siblings or ()}
    others = sorted(there - {'.gitattributes', _README, 'LICENSE'})
    if others and LIBRARY not in (found.library_name, getattr(found.card_data, 'library_name', 0)):
        raise InputError(
            f'{place.url} holds {hub.printable(others[0])}, and no {_README} with library_name: '
            f'{LIBRARY}: if it is no other model, pass card={{}} or --card=new, or add that line'
        )
    if _README not in there:
        return False
    if facts:
        raise InputError(
            f'{place.url} has a {_README}, which would be kept without {", ".join(facts)}: pass '
            'card={} or --card=new for another, or leave these out'
        )
    _logger.warning(
        '%s has a %s, which is kept as it is: pass card={} or --card=new for another',
        place.url,
        _README,
    )
    return True


def _upload(
    folder: pathlib.Path,
    place: hub.Place,
    found: huggingface_hub.ModelInfo | None,
    private: bool,
    message: str,
) -> str:
    """Uploads the files of a folder in one commit; returns its address."""
    api, name = huggingface_hub.HfApi(), place.repository
    if found is not None and private and not found.private:
        raise InputError(f'{place.url} is public: make it private there, or choose another name')
    files = sorted(folder.iterdir())
    if (folder / _README).exists():
        _validate(folder / _README)
    if found is None:
        api.create_repo(name, private=private or None, exist_ok=True)
    if place.revision is not None:
        api.create_branch(name, branch=place.revision, exist_ok=True)
    commit = api.create_commit(
        name,
        [CommitOperationAdd(path.name, path) for path in files],
        commit_message=message,
        revision=place.revision,
        parent_commit=found and found.sha,  # refused if someone was quicker
    )
    return str(commit.commit_url)


def _validate(card: pathlib.Path) -> None:
    """Asks the Hub about the fields of a card, before anything is made there."""
    try:
        ModelCard.load(card).validate()
    except ValueError as error:
        raise InputError(
            f'the Hub refuses the card: {hub.printable(" ".join(str(error).split()))}'
        ) from None


def _find(api: huggingface_hub.HfApi, place: hub.Place) -> huggingface_hub.ModelInfo | None:
    """The repository at the branch, or at the main one that a new branch begins from."""
    try:
        return api.model_info(place.repository, revision=place.revision)
    except errors.GatedRepoError:
        raise
    except errors.RepositoryNotFoundError:
        return None
    except errors.RevisionNotFoundError:
        return api.model_info(place.repository)


@contextlib.contextmanager
def _explained(place: hub.Place) -> Iterator[None]:
    """Turns errors of the Hub into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of the Hub, its HTTP client, or the disk
        line = f'the upload to {place} failed ({hub.reason(error)}): run this again'
        raise InputError(hub.explain(error, place) or line) from None
