"""Fetches files of weights from the Hugging Face Hub, once, into the Hub's own cache."""

import contextlib
import dataclasses
import logging
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.torch_weights.files import SUFFIXES
from m2l_jax.torch_weights.pickles import import_torch

SCHEME = 'hf://'
RELEASED = 'SonyCSLParis/music2latent'
WEIGHTS = 'model.safetensors'  # its name in a repository of this project's models

_ADDRESS = re.compile(
    r'hf://(?:models/)?(?P<repository>[^/@]+/[^/@]+)'
    r'(?:@(?P<revision>refs/pr/\d+|[^/]+))?(?:/(?P<file>.+?))?/?'
)
_COMMIT = re.compile('[0-9a-f]{40}')
_MOST_NAMES = 8
_LICENCES = {RELEASED: ('cc-by-nc-4.0', 'CC BY-NC 4.0: not for commercial use')}

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Place:
    """A repository of models, or a file in it.

    Attributes:
      repository: 'user/model'.
      revision: branch, tag or commit; None for the main branch.
      file: its path in the repository; None for the only one of weights.

    Raises:
      InputError: for a part that is no plain path; folders of the cache have these names.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            parts = value.split('/') if value is not None else ()
            if any(part in ('', '.', '..') or not part.isprintable() for part in parts):
                raise InputError(f'{value!r} is no {name} in the Hub: use the name on its page')

    def __str__(self) -> str:
        revision = f'@{urllib.parse.quote(self.revision, "")}' if self.revision else ''
        return f'{SCHEME}{self.repository}{revision}' + (f'/{self.file}' if self.file else '')

    @property
    def url(self) -> str:
        """The repository's page."""
        from huggingface_hub import constants

        return f'{constants.ENDPOINT}/{self.repository}'


def is_address(checkpoint: Any) -> bool:
    """True for `hf://…`."""
    return isinstance(checkpoint, str) and checkpoint.startswith(SCHEME)


def parse(address: str) -> Place:
    """Reads `hf://user/model`, `hf://user/model@revision` or `hf://user/model/file.safetensors`.

    Raises:
      InputError: for another address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(
            f'{printable(address)} is no address of a model: use hf://user/model, '
            'hf://user/model@revision or hf://user/model/file.safetensors'
        )
    revision = match['revision']
    return Place(match['repository'], revision and urllib.parse.unquote(revision), match['file'])


def parse_with_revision(name: str, revision: str | None) -> Place:
    """Reads 'user/model', 'user/model@revision' or an address, with a revision beside it.

    Raises:
      InputError: for another name, or two revisions.
    """
    place = parse(name if is_address(name) else f'{SCHEME}{name}')
    if place.revision and revision:
        raise InputError(f'{name} names a revision already: leave out revision={revision!r}')
    return dataclasses.replace(place, revision=place.revision or revision or None)


def printable(text: str) -> str:
    """A text of others for one line of a terminal: escapes control characters."""
    escaped = (c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
    return ''.join(escaped)


def fetch(address: str) -> pathlib.Path:
    """Fetches a file of weights, unless the cache has it; without a connection, the cache must.

    Of an address without a file, it is `model.safetensors` or the repository's only file of
    weights. For repositories that aren't public it uses the token of `hf auth login` or `HF_TOKEN`.

    Raises:
      InputError: for a repository, revision or file that isn't there or open to this user, several
        files of weights or none, or no connection.
    """
    place = parse(address)
    with quiet_hub():
        path = _fetch(place)
    warn_of_licence(place.repository)
    return path


def warn_of_licence(repository: str) -> None:
    """Logs the licence of weights that are not for every use, if it is known."""
    if licence := _LICENCES.get(repository):
        _logger.warning('the weights of %s are %s', repository, licence[1])


def known_licence(checkpoint: Any) -> str | None:
    """The Hub's identifier of the licence of an address's weights; None where it isn't known."""
    repository = parse(checkpoint).repository if is_address(checkpoint) else None
    return _LICENCES[repository][0] if repository in _LICENCES else None


def pin(address: str) -> str:
    """The address with its file and commit, the same for other processes later; fetches it."""
    place, parts = parse(address), fetch(address).parts
    folder = 'models--' + place.repository.replace('/', '--')
    _, commit, *file = parts[parts.index(folder) + 1 :]  # after 'snapshots'
    return str(dataclasses.replace(place, revision=commit, file='/'.join(file)))


def choose_file(names: Iterable[str], place: Place) -> str | None:
    """The file of weights among files: `model.safetensors`, or else the only one; None without any.

    Raises:
      InputError: for several; it lists them.
    """
    names = sorted(name for name in names if name.endswith(SUFFIXES))
    if WEIGHTS in names or not names:
        return WEIGHTS if names else None
    if len(names) == 1:
        return names[0]
    more = f' and {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
    raise InputError(
        f'{place} holds several files of weights ({_list(names)}{more}): choose one, as in '
        f'{place}/{printable(names[0])}'
    )


def explain(error: Exception, place: Place) -> str | None:
    """One line on an answer of the Hub; None for one that says nothing about the repository."""
    from huggingface_hub import errors

    log_in = 'log in with `hf auth login` or set HF_TOKEN'
    if isinstance(error, errors.GatedRepoError):
        return f'{place} is gated: ask for access on {place.url}, then {log_in}'
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f'{SCHEME}{place.repository} does not exist or is private: check the name; for a '
            f'private one, {log_in}'
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f'{SCHEME}{place.repository} has no revision {place.revision!r}: see {place.url}'
    if isinstance(error, errors.HFValidationError):
        why = printable(first_line(error))
        return f'{SCHEME}{place.repository} is no name of a repository: {why}'
    if isinstance(error, errors.LocalTokenNotFoundError) or _status(error) == 401:
        return f'the Hub does not know who you are: {log_in}'
    if _status(error) == 403:
        return f'your token gives no right to this in {SCHEME}{place.repository}: {log_in}'
    return None


def reason(error: Exception) -> str:
    """The reason why the Hub could not be asked, without the parameters of addresses."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return 'HF_HUB_OFFLINE is set'
    cause = error if _status(error) is not None else error.__cause__ or error
    return re.sub(r"\?[^\s'\")]*", '', printable(first_line(cause)))  # they may hold a signature


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Silences the Hub's own log, which repeats each attempt."""
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)


def _fetch(place: Place) -> pathlib.Path:
    import huggingface_hub
    from huggingface_hub import constants

    if place.file is not None and not place.file.endswith(SUFFIXES):
        raise InputError(f'{place} is no file of weights: use one of {", ".join(SUFFIXES)}')
    if place.revision and _COMMIT.fullmatch(place.revision) and (path := _find_cached(place)):
        return path
    where = {'repo_id': place.repository, 'revision': place.revision}
    try:
        found = huggingface_hub.HfApi().model_info(**where, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        names = [each.rfilename for each in found.siblings or ()]
        name = _name(place, names)
        if name.endswith('.pt'):
            import_torch(f'{place.repository}/{name}')  # fails before the download if it is missing
        if _find_cached(dataclasses.replace(place, file=name, revision=found.sha)) is None:
            _logger.info('fetching %s from %s', name, place.url)
        return pathlib.Path(huggingface_hub.hf_hub_download(filename=name, **where))
    except InputError:
        raise
    except Exception as error:  # of the Hub, its HTTP client, or the disk
        if line := explain(error, place):
            raise InputError(line) from None
        why = reason(error)
    if path := _find_cached(place):
        _logger.warning('%s is read from the cache: %s', place, why)
        return path
    raise InputError(
        f'{place} is not in the cache and cannot be fetched ({why}). Fetch {place.file or "it"} '
        f'from {place.url} on a machine with a connection, and pass the file as the checkpoint'
    )


def _name(place: Place, names: list[str]) -> str:
    """The file to fetch, of those in the repository."""
    if place.file is None:
        if name := choose_file(names, place):
            return name
        raise InputError(
            f'{place} holds no {" or ".join(SUFFIXES)} file: it is no model that this project reads'
        )
    if place.file not in names:
        weights = [name for name in names if name.endswith(SUFFIXES)] or ['no weights']
        repository = dataclasses.replace(place, file=None)
        raise InputError(f'{repository} has no file {place.file!r}: it holds {_list(weights)}')
    return place.file


def _list(names: list[str]) -> str:
    return ', '.join(map(printable, names[:_MOST_NAMES]))


def _find_cached(place: Place) -> pathlib.Path | None:
    """The file in the cache, as last fetched; None without one."""
    import huggingface_hub

    try:
        if place.file is not None:
            found = huggingface_hub.try_to_load_from_cache(
                place.repository, place.file, revision=place.revision
            )
            return pathlib.Path(found) if isinstance(found, str) else None
        found = huggingface_hub.snapshot_download(
            place.repository,
            revision=place.revision,
            local_files_only=True,
            allow_patterns='-',  # whatever is there: a repository is never fetched whole
        )
    except (OSError, ValueError):  # not there, or no name that the cache may have
        return None
    folder = pathlib.Path(found)
    files = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
    return (name := choose_file(files, place)) and folder / name


def _status(error: Exception) -> int | None:
    """The status of an HTTP answer; None for other errors."""
    return getattr(getattr(error, 'response', None), 'status_code', None)
