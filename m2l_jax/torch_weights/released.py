"""Fetches the weights that Music2Latent's authors released."""

import logging
import pathlib

from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import user_cache_folder
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model
from m2l_jax.torch_weights.files import import_torch

_REPOSITORY = 'SonyCSLParis/music2latent'
_FILE = 'music2latent.pt'
_LICENCE = 'CC BY-NC 4.0: not for commercial use'

_logger = logging.getLogger(__name__)


def fetch_released() -> pathlib.Path:
    """Fetches the released weights once, as a `.safetensors` file in `user_cache_folder()`.

    They are not part of this project and not under its licence: they are CC BY-NC 4.0.

    Raises:
      InputError: if they cannot be fetched; it says what to do without a connection.
    """
    path = user_cache_folder() / 'music2latent.safetensors'
    if not path.exists():
        _logger.warning('fetching %s from huggingface.co/%s', _FILE, _REPOSITORY)
        import_torch(_FILE)  # fails before the download if it is missing
        model, params = load_torch_model(_download())
        save_torch_model(path, model.config, params)
    _logger.warning('the weights of %s are %s', _REPOSITORY, _LICENCE)
    return path


def _download() -> str:
    import huggingface_hub
    from huggingface_hub.utils import logging as hub_logging

    # The hub logs each attempt twice.
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        return huggingface_hub.hf_hub_download(_REPOSITORY, _FILE)
    except Exception as error:  # of the hub, its HTTP client, or the disk
        raise InputError(
            f'the released weights cannot be fetched ({first_line(error)}). Fetch {_FILE} from '
            f'https://huggingface.co/{_REPOSITORY} on a machine with a connection, and pass it as '
            'the checkpoint'
        ) from None
    finally:
        hub_logging.set_verbosity(verbosity)
