"""Fetches the weights that Music2Latent's authors released."""

import pathlib

from m2l_jax.interface.paths import user_cache_folder
from m2l_jax.torch_weights import hub
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model

_ADDRESS = f'{hub.SCHEME}{hub.RELEASED}/music2latent.pt'


def fetch_released() -> pathlib.Path:
    """Fetches the released weights once, as a `.safetensors` file in `user_cache_folder()`.

    They are not part of this project and not under its licence: they are CC BY-NC 4.0.

    Raises:
      InputError: if they cannot be fetched; it says what to do without a connection.
    """
    path = user_cache_folder() / 'music2latent.safetensors'
    if path.exists():
        hub.warn_of_licence(hub.RELEASED)
        return path
    model, params = load_torch_model(hub.fetch(_ADDRESS))
    save_torch_model(path, model.config, params)
    return path
