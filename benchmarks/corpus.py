"""How near does encoding files to files come to the bare model, and how does the package compare?

    python -m benchmarks.corpus --input=/data/music --files=16 --seconds=10
    python -m benchmarks.corpus --input=/data/music --files=16 --seconds=5,40 --rounds=3

Cuts files from recordings, of one length or of random ones between two, and encodes them in turns:
by a corpus job, from files on disk to shards on disk; by the jitted model alone, each length
compiled for itself, from audio in memory; and by the PyTorch package, file by file, from disk. All
at full size with fresh weights, warm. Prints JSON: times real time, medians over the rounds, and
their ratios, each of one round.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import statistics
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import soundfile
from absl import app, flags

from benchmarks import machine
from m2l_jax.audio import files
from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.encoding import EncodeJob, EncodeSettings, EncodeWorker
from m2l_jax.corpus.execution import RunOptions, run_job
from m2l_jax.corpus.inputs import audio_items
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.reference import reference_network
from m2l_jax.training.state import compute_once

_INPUT = flags.DEFINE_string('input', None, 'Folder of recordings.', required=True)
_FILES = flags.DEFINE_integer('files', 16, 'To encode.')
_SECONDS = flags.DEFINE_list('seconds', ['10'], 'Of each, or the least and the most.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, '')
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
_FORMAT = flags.DEFINE_enum('format', 'tfds', ['npz', 'tfds'], 'Of the output.')
_SHARD_FILES = flags.DEFINE_integer('shard_files', 4, 'In a shard.')
_REFERENCE = flags.DEFINE_boolean('reference', True, 'Whether to run the package as well.')

_SAMPLE_RATE = 44_100


def main(_):
    """Encodes, and prints the figures."""
    use_compile_cache()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        seconds = _cut_files(pathlib.Path(folder) / 'audio')
        ways = _ways(pathlib.Path(folder), stack)
        for run in ways.values():
            run()  # compiles
        rounds = []
        for _ in range(_ROUNDS.value):
            rounds.append({name: seconds / _time(run) for name, run in ways.items()})
    print(json.dumps(_describe(seconds, rounds), indent=2))


def _ways(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Callable[[], None]]:
    model = Music2Latent(ModelConfig(dtype=_DTYPE.value))
    params = compute_once(lambda: model.init_params(jax.random.key(0)))
    codec = EncoderDecoder.from_params(
        model, params, dtype=_DTYPE.value, devices=jax.local_devices()
    )
    ways = {
        'corpus': _corpus(codec, folder / 'audio', folder / 'latents'),
        'bare': _bare(model, params, folder / 'audio'),
    }
    if _REFERENCE.value:
        network = stack.enter_context(reference_network(ModelConfig()))
        ways['package'] = _package(network, folder / 'audio')
    return ways


def _cut_files(folder: pathlib.Path) -> float:
    """Writes the files, mono FLAC in 16 bits; returns their seconds."""
    folder.mkdir()
    random = np.random.default_rng(0)
    least, most = float(_SECONDS.value[0]), float(_SECONDS.value[-1])
    recordings = [
        path
        for path in files.find(_INPUT.value)
        if files.read_info(path).samples_at(_SAMPLE_RATE) >= most * _SAMPLE_RATE
    ]
    total = 0
    for number in range(_FILES.value):
        samples = round(random.uniform(least, most) * _SAMPLE_RATE)
        path = recordings[number % len(recordings)]
        audio = files.read(path, _SAMPLE_RATE, 0, samples)[0]
        soundfile.write(folder / f'{number:04d}.flac', audio, _SAMPLE_RATE)
        total += samples
    return total / _SAMPLE_RATE


def _corpus(
    codec: EncoderDecoder, source: pathlib.Path, target: pathlib.Path
) -> Callable[[], None]:
    settings = EncodeSettings(codec.model_id, format=_FORMAT.value, dtype=_DTYPE.value)

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        report = run_job(
            lambda shards: EncodeJob(None, str(target), settings, None, shards),
            lambda job: EncodeWorker(job, codec),
            audio_items(str(source), target),
            dataclasses.asdict(settings),
            target,
            RunOptions(shard_megabytes=1e9, shard_files=_SHARD_FILES.value, share='0/1'),
        )
        assert report.files == _FILES.value

    return run


def _bare(model: Music2Latent, params, source: pathlib.Path) -> Callable[[], None]:
    """The model and its spectrogram in one program; nothing is padded or masked."""
    step, reach = 4096, 1536
    audio = []
    for path in sorted(source.iterdir()):
        waveform = files.read(path, _SAMPLE_RATE)
        whole = (waveform.shape[1] - reach) // step * step + reach
        audio.append(jax.device_put(waveform[:, :whole]))

    @jax.jit
    def encode(params, waveform):
        spectrogram = to_spectrogram(waveform, model.config.spectrogram)
        return model.apply({'params': params}, spectrogram, method='encode')

    def run() -> None:
        for waveform in audio:
            np.asarray(encode(params, waveform))

    return run


def _package(network: Any, source: pathlib.Path) -> Callable[[], None]:
    """As its `EncoderDecoder` does it: one file after another, in chunks of a minute."""
    from music2latent import inference

    trainer = types.SimpleNamespace(gen=network)

    def run() -> None:
        for path in sorted(source.iterdir()):
            audio, _ = soundfile.read(path, dtype='float32', always_2d=True)
            inference.encode_audio_inference(audio.T, trainer, _SAMPLE_RATE * 60, 1, 'cpu')

    return run


def _time(run: Callable[[], None]) -> float:
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


def _describe(seconds: float, rounds: list[dict[str, float]]) -> dict:
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    ratios = {
        f'corpus over {name}': [round(r['corpus'] / r[name], 3) for r in rounds]
        for name in rounds[0]
        if name != 'corpus'
    }
    return {
        **machine.describe(),
        'devices': f'{jax.device_count()} {jax.devices()[0].device_kind}',
        'files': _FILES.value,
        'audio_seconds': round(seconds, 1),
        'dtype': _DTYPE.value,
        'format': _FORMAT.value,
        'times_real_time': {name: round(value, 2) for name, value in medians.items()},
        'ratios_by_round': ratios,
        'ratio_medians': {name: statistics.median(values) for name, values in ratios.items()},
    }


if __name__ == '__main__':
    app.run(main)
