"""Music2Latent in JAX: consistency audio autoencoders, trained and applied."""

import importlib

_PUBLIC = {
    'EncoderDecoder': 'm2l_jax.codec.encoder_decoder',
    'InputError': 'm2l_jax.interface.errors',
    'ModelConfig': 'm2l_jax.model.config',
    'Music2Latent': 'm2l_jax.model.autoencoder',
    'SpectrogramConfig': 'm2l_jax.audio.spectrogram',
    'load_model': 'm2l_jax.checkpoint.store',
    'push_to_hub': 'm2l_jax.sharing.push',
    'to_spectrogram': 'm2l_jax.audio.spectrogram',
    'to_waveform': 'm2l_jax.audio.spectrogram',
    'use_compile_cache': 'm2l_jax.codec.compile_cache',
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    """Loads a public name when it is first asked for: importing the package costs nothing."""
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
