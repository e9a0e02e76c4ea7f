"""The README of an exported codec, for a reader without this package."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from m2l_jax.codec.chunks import CHUNK_SECONDS
from m2l_jax.exporting.functions import Function

_README = """\
# An exported Music2Latent codec

`encode` turns audio of {sample_rate} Hz into latent vectors of {latent_channels} numbers, one for \
each {samples_per_latent} samples, and `decode` turns them back into audio. They run without \
m2l_jax, on {platforms}. In this folder, with any audio file as `song.wav`:

```sh
pip install {packages} soundfile soxr
```

```python
{load}
import soundfile, soxr

RATE = {sample_rate}  # Hz
STEP, REACH = {samples_per_latent}, {reach}  # samples of a vector, and beyond the last one
CHUNK = {chunk}  # vectors: {chunk_seconds} s

audio, rate = soundfile.read('song.wav', dtype='float32', always_2d=True)
audio = soxr.resample(audio, rate, RATE).T  # [channels, samples]
{to_rows}
rows, samples = len(audio), audio.shape[-1]
vectors = -(-samples // STEP)
silence = np.zeros((*audio.shape[:-1], vectors * STEP + REACH - samples), np.float32)
audio = np.concatenate([audio, silence], axis=-1)  # {step_samples}

size = min(CHUNK, vectors)  # of each chunk; the song's start completes the last
lengths = np.full(rows, size, np.int32)  # an argument of each row
encoded = []
for begin in range(0, vectors, size):
    own = min(size, vectors - begin)
    first = audio[..., begin * STEP : (begin + own) * STEP + REACH]
    second = audio[..., : (size - own) * STEP + REACH]
    pieces = np.concatenate([first, second], axis=-1)
    encoded.append(encode(pieces, np.full_like(lengths, own), lengths)[..., :own])
latents = np.concatenate(encoded, axis=-1)  # [rows, {latent_channels}, vectors]
np.save('latents.npy', latents)

seeds = np.zeros(rows, np.uint32)
channels = np.arange(rows, dtype=np.int32)
restored = np.zeros((*audio.shape[:-1], (vectors + size) * STEP + REACH), np.float32)
for begin in range(0, vectors, size):
    numbers = np.arange(begin, begin + size, dtype=np.int32) % vectors
    positions = np.tile(numbers, (rows, 1))
    decoded = decode(latents[..., numbers], lengths, seeds, channels, positions)
    restored[..., begin * STEP : (begin + size) * STEP + REACH] += decoded
restored = restored.reshape(-1, restored.shape[-1])[:, :samples]
soundfile.write('restored.wav', restored.clip(-1, 1).T, RATE)
```

`l` latent vectors stand for `{step_samples}` samples, so other lengths are completed with \
silence, as above, or cut. `encode` takes two pieces of audio, joined: of `splits` vectors and of \
the row's others, each with {reach} samples beyond its vectors. Of a single piece, all vectors are \
in `splits`, and {reach} zeros follow it. {row} Any number of rows `b` goes, and each pair of `b` \
and `l` is compiled once. Rows of several lengths share a call if the shorter ones are padded with \
zeros and `lengths` says how many vectors each has; beyond these, results mean nothing. \
Normalisation pools over a row, so long audio is encoded and decoded in chunks of a minute, the \
last of which is completed from the start.{tokens}

| function | argument | shape | type | meaning |
|---|---|---|---|---|
{arguments}

Arguments go by position. Written by JAX {jax}, whose serialised programs later versions read for \
six months, earlier ones for three weeks; after that, export again. manifest.json has the same for \
programs.
"""

_ROWS = {
    1: ('# Each channel is a row.', 'A row is one channel.'),
    2: (
        'audio = np.broadcast_to(audio, (2, audio.shape[1]))[None]  # a row; mono fills both',
        'A row is both channels of stereo.',
    ),
}
_TOKENS = (
    ' This model is discrete: '
    '`np.rint((latents * {scale} + 1) / 2 * {most}).clip(0, {most}).astype(np.uint8)` are its '
    'tokens, and `(tokens / {most} * 2 - 1) / {scale}`, as float32, their latents.'
)


def write_readme(
    functions: Sequence[Function], manifest: Mapping[str, Any], load: str, packages: str
) -> str:
    """Returns a README with a program that encodes and decodes an audio file.

    Args:
      functions: that were exported.
      manifest: of the folder.
      load: Python lines that import NumPy as `np` and define `encode` and `decode`.
      packages: that these lines need, as `pip install` takes them.
    """
    to_rows, row = _ROWS[manifest['audio_channels']]
    step, levels = manifest['samples_per_latent'], manifest['levels']
    return _README.format(
        **{**manifest, 'platforms': ', '.join(manifest['platforms'])},
        load=load,
        packages=packages,
        chunk_seconds=CHUNK_SECONDS,
        chunk=CHUNK_SECONDS * manifest['sample_rate'] // step,
        step_samples=f'{step}*l + {manifest["reach"]}',
        to_rows=to_rows,
        row=row,
        tokens=_TOKENS.format(scale=manifest['scale'], most=levels - 1) if levels else '',
        arguments='\n'.join(_table_rows(functions)),
    )


def _table_rows(functions: Sequence[Function]) -> list[str]:
    rows = []
    for function in functions:
        for each in (*function.arguments, dataclasses.replace(function.result, name='result')):
            cells = function.name, each.name, f'`[{each.shape}]`', each.dtype, each.meaning
            rows.append(f'| {" | ".join(cells)} |')
    return rows
