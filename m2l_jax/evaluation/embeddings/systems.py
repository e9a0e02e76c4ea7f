"""Distances of systems from the clips that they reconstruct."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from m2l_jax.evaluation.clips import Clip
from m2l_jax.evaluation.embeddings.choice import Embedding
from m2l_jax.evaluation.embeddings.distances import measure_distances
from m2l_jax.evaluation.measuring.workers import Workers
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import progress


class EmbeddedClips:
    """A system's clips, of which the embeddings alone are kept.

    Args:
      embeddings: of which each embeds each clip.
      sample_rate: of the clips, in Hz.
    """

    def __init__(self, embeddings: Sequence[Embedding], sample_rate: int):
        self._embeddings, self._rate = embeddings, sample_rate
        self._frames: list[list[np.ndarray]] = [[] for _ in embeddings]  # by embedding and clip

    def of_another_system(self) -> 'EmbeddedClips':
        """None yet, by the same networks."""
        return EmbeddedClips(self._embeddings, self._rate)

    def add(self, waveform: np.ndarray) -> None:
        """Embeds the next clip, `[channels, samples]`.

        Raises:
          InputError: see `Embedding.embed`.
        """
        for embedding, frames in zip(self._embeddings, self._frames, strict=True):
            frames.append(embedding.embed(waveform, self._rate))

    def measure(self, reference: 'EmbeddedClips', workers: Workers) -> dict[str, Any]:
        """Measures the distances from the originals of these clips, by the name of the embedding.

        Each is computed by one of the workers; see `measure_distances`.
        """
        pairs = list(zip(reference._frames, self._frames, strict=True))
        for embedding, pair in zip(self._embeddings, pairs, strict=True):
            original, own = ([frames.shape for frames in each] for each in pair)
            if original != own:
                raise InputError(
                    f'--embeddings: {embedding.name} gives clips of the same length other numbers '
                    'of frames: export it so that the length alone decides'
                )
        futures = [workers.submit(measure_distances, *pair) for pair in pairs]
        names = [embedding.name for embedding in self._embeddings]
        return {name: future.result() for name, future in zip(names, futures, strict=True)}


def embed_clips(
    embeddings: Sequence[Embedding], clips: Sequence[Clip], sample_rate: int
) -> EmbeddedClips:
    """Embeds original clips."""
    embedded = EmbeddedClips(embeddings, sample_rate)
    if embeddings:
        with progress(len(clips), 'piece', f'embeddings of {len(clips)} pieces') as advance:
            for clip in clips:
                embedded.add(clip.waveform)
                advance()
    return embedded
