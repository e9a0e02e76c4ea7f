"""Delay, speed and quality of decoding as latents arrive, by the length of a chunk.

    python -m benchmarks.streaming --checkpoint=small --output=streaming.json
    python -m benchmarks.streaming --checkpoint=DIR --audio=song.flac --chunk_seconds=2,4

Encodes a recording at once and decodes it by `EncoderDecoder.stream`, warm, the lengths in turns.
`waits` is the audio whose latents the first block needs, and `computes` the seconds from these to
that block: together the delay of a source that makes latents at the speed of the audio. `x real
time` is all audio over all computing; `core seconds` are those for a second of audio, which other
load on the machine changes less. `mel distance` is that to the recording, and `SNR` that of the
audio against decoding all latents at once.
"""

import functools
import time

import numpy as np
from absl import flags

from benchmarks import options, report, timing
from m2l_jax.audio import files
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.metrics import mel_distance, snr
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

_CHECKPOINT = command.define_checkpoint()
_AUDIO = flags.DEFINE_string('audio', 'm2l_jax/assets/heldout/greensleeves.ogg', 'Recording.')
_SECONDS = flags.DEFINE_float('seconds', 30.0, 'Of the recording, mono, at most.')
_CHUNKS = flags.DEFINE_list('chunk_seconds', ['2', '4', '8', '16'], 'Lengths to compare.')
_OVERLAP = flags.DEFINE_float('overlap', 0.5, 'Seconds of the fade.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each.', lower_bound=1)
_OUTPUT = report.define_output()


def main() -> None:
    """Takes turns, and prints the figures."""
    lengths = options.numbers(_CHUNKS, float)
    codec = EncoderDecoder(_CHECKPOINT.value)
    rate = codec.sample_rate
    audio = files.read(_AUDIO.value, rate)[:1, : round(_SECONDS.value * rate)]
    latents = codec.encode(codec.pad(audio))
    if latents.shape[2] * codec.samples_per_latent < max(lengths) * rate:
        raise InputError(f'{_AUDIO.value} is shorter than a chunk of {max(lengths):g} s')
    streams = {
        f'{length:g} s': functools.partial(
            codec.stream,
            max_waveform_length=round(length * rate),
            overlap=round(_OVERLAP.value * rate),
        )
        for length in lengths
    }
    whole, rows = codec.decode(latents), {}
    for name, stream in streams.items():  # compiles
        decoded = np.concatenate(list(stream([latents])), axis=1)
        samples = audio.shape[1]
        rows[name] = {
            'mel_distance': timing.rounded(mel_distance(audio, decoded[:, :samples], rate)),
            'snr': timing.rounded(snr(whole, decoded)),
            'waits': timing.rounded(_taken(codec, stream, latents)),
        }
    first: dict[str, list[float]] = {name: [] for name in streams}
    cores: dict[str, list[float]] = {name: [] for name in streams}

    def run(name: str) -> float:
        begin, computed = time.perf_counter(), time.process_time()
        blocks = streams[name]([latents])
        next(blocks)
        first[name].append(time.perf_counter() - begin)
        list(blocks)
        cores[name].append((time.process_time() - computed) * rate / audio.shape[1])
        return time.perf_counter() - begin

    turns = {name: functools.partial(run, name) for name in streams}
    seconds = timing.alternate(turns, _ROUNDS.value)
    for name, row in rows.items():
        row['computes'] = timing.medians(first)[name]
        row['core_seconds'] = timing.medians(cores)[name]
        row['x_real_time'] = timing.rounded(audio.shape[1] / rate / np.median(seconds[name]))
        row['seconds'] = [timing.rounded(each) for each in seconds[name]]
    mel = timing.rounded(mel_distance(audio, whole[:, : audio.shape[1]], rate))
    figures = {'audio_seconds': audio.shape[1] / rate, 'mel_distance': mel, 'chunks': rows}
    head = (
        'chunk',
        'waits s',
        'computes s',
        'x real time',
        'core seconds',
        'mel distance',
        'SNR dB',
    )
    names = ('waits', 'computes', 'x_real_time', 'core_seconds', 'mel_distance', 'snr')
    table = [(name, *(row[each] for each in names)) for name, row in rows.items()]
    report.publish(figures, [head, *table, ('whole', '', '', '', '', mel, '')], _OUTPUT.value)


def _taken(codec: EncoderDecoder, stream: functools.partial, latents: np.ndarray) -> float:
    """Seconds of audio whose latents are taken before the first block."""
    taken = []
    vectors = np.split(latents, latents.shape[2], axis=2)
    next(stream(taken.append(None) or vector for vector in vectors))
    return len(taken) * codec.samples_per_latent / codec.sample_rate


if __name__ == '__main__':
    command.run(main)
