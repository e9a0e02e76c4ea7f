"""Embeddings of audio, chosen by name."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import soxr

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.embeddings import musicnn
from m2l_jax.evaluation.embeddings.exported import ExportedModel
from m2l_jax.evaluation.perception.packages import describe_missing
from m2l_jax.interface.errors import InputError

MUSICNN, ENCODER = 'musicnn', 'encoder'

_MUSICNNS = {MUSICNN: 'MSD_musicnn', 'MTT_musicnn': 'MTT_musicnn'}


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A network that describes audio by vectors.

    Attributes:
      name: of the embedding in a report.
      label: the same for readers.
      sample_rate: of its input, in Hz.
      function: from mono `[samples]` at that rate to `[frames, width]`, float32.
    """

    name: str
    label: str
    sample_rate: int
    function: Callable[[np.ndarray], np.ndarray]

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Embeds the mean of the channels of `[channels, samples]`: `[frames, width]`, float32.

        Raises:
          InputError: see `ExportedModel`.
        """
        mono = np.mean(waveform, axis=0, dtype=np.float32)
        return self.function(soxr.resample(mono, sample_rate, self.sample_rate))


def default_names() -> tuple[list[str], str]:
    """Names for those who choose none, and a line on what is left out, if anything."""
    missing = describe_missing(musicnn.NEEDS)
    return ([], f'no Fréchet and kernel distances: {missing}') if missing else ([MUSICNN], '')


def open_embeddings(names: Sequence[str], codec: EncoderDecoder) -> list[Embedding]:
    """Opens embeddings.

    Args:
      names: each 'musicnn', the network trained on the Million Song Dataset; 'MTT_musicnn', trained
        on MagnaTagATune; 'encoder', the latents of `codec`; or 'PATH:RATE', a model of another
        framework, see `ExportedModel`, and its sample rate in Hz.
      codec: the model whose latents they are, whatever is measured.

    Raises:
      InputError: for another name, one given twice, or a model that cannot be read.
    """
    opened: dict[str, Embedding] = {}
    for name in names:
        embedding = _open(name, codec)
        if embedding.name in opened:
            raise InputError(f'--embeddings={name}: {embedding.name} is there already')
        opened[embedding.name] = embedding
    return list(opened.values())


def embed_by_codec(codec: EncoderDecoder, waveform: np.ndarray) -> np.ndarray:
    """Latents of `[samples]`, `[frames, 64]`.

    Latents rather than the 8192 features: a covariance of those would need many thousand frames.
    """
    return codec.encode(codec.pad(waveform))[0].T


def _open(name: str, codec: EncoderDecoder) -> Embedding:
    if name in _MUSICNNS:
        return Embedding(name, name, musicnn.SAMPLE_RATE, musicnn.Musicnn(_MUSICNNS[name]))
    if name == ENCODER:
        rate = codec.sample_rate
        label = "encoder, the model's own latents"
        return Embedding(name, label, rate, functools.partial(embed_by_codec, codec))
    path, _, rate = name.rpartition(':')
    if not path or not rate.isdecimal() or not 1000 <= int(rate) <= 384_000:
        raise InputError(
            f'--embeddings={name} is none of {", ".join((*_MUSICNNS, ENCODER))}: for a model of '
            'your own give its path and sample rate in Hz, PATH:16000'
        )
    stem = pathlib.Path(path).stem
    return Embedding(stem, stem, int(rate), ExportedModel(path))
