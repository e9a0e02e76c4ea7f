"""How near does encoding files to files come to the bare model, and how does the package compare?

    python -m benchmarks.corpus --input=/data/music --files=16 --seconds=10
    python -m benchmarks.corpus --input=/data/music --files=16 --seconds=5,40 --output=corpus.json

Cuts files from recordings, by default the bundled ones, of one length or of random lengths between
two. Three ways take turns, warm, with fresh weights: a corpus job, from files to shards; the jitted
model alone, compiled for each length, on audio in memory; and the PyTorch package as it comes, file
by file from disk. Prints times real time, and how many times as fast the job is.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import soundfile
from absl import flags

from benchmarks import options, report, timing
from m2l_jax.audio import files
from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.encode import EncodeJob, EncodeSettings
from m2l_jax.corpus.inputs import find_audio
from m2l_jax.corpus.plan import plan_shards
from m2l_jax.corpus.run import RunOptions, run_job
from m2l_jax.interface import command
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.reference import reference_network

_INPUT = flags.DEFINE_string('input', 'm2l_jax/assets/train', 'Folder of recordings.')
_MODEL = options.define_size()
_FILES = flags.DEFINE_integer('files', 16, 'To encode.')
_SECONDS = flags.DEFINE_list('seconds', ['10'], 'Of each, or the least and the most.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, '')
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.')
_FORMAT = flags.DEFINE_enum('format', 'tfds', ['npz', 'tfds'], 'Of the output.')
_SHARD_FILES = flags.DEFINE_integer('shard_files', 4, 'In a shard.')
_REFERENCE = flags.DEFINE_boolean('reference', True, 'Whether to run the package as well.')
_OUTPUT = report.define_output()

_SAMPLE_RATE = 44_100


def main() -> None:
    """Encodes, and prints the figures."""
    use_compile_cache()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        seconds = _cut_files(pathlib.Path(folder) / 'audio')
        ways = _ways(pathlib.Path(folder), stack)
        for run in ways.values():
            run()  # compiles
        timed = {name: timing.timed(run) for name, run in ways.items()}
        runs = timing.alternate(timed, _ROUNDS.value)
    figures = _figures(seconds, runs)
    report.publish(figures, _rows(figures), _OUTPUT.value)


def _ways(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Callable[[], None]]:
    config = options.model_config(_MODEL.value)
    model = Music2Latent(dataclasses.replace(config, dtype=_DTYPE.value))
    params = compute_once(lambda: model.init_params(jax.random.key(0)))
    codec = EncoderDecoder.from_params(
        model, params, dtype=_DTYPE.value, devices=jax.local_devices()
    )
    ways = {
        'corpus': _corpus(codec, folder / 'audio', folder / 'latents'),
        'bare': _bare(codec.model, params, folder / 'audio'),
    }
    if _REFERENCE.value:
        network = stack.enter_context(reference_network(config))
        ways['package'] = _package(network, folder / 'audio')
    return ways


def _cut_files(folder: pathlib.Path) -> float:
    """Writes the files, mono FLAC in 16 bits; returns their seconds."""
    folder.mkdir()
    random = np.random.default_rng(0)
    least, most = float(_SECONDS.value[0]), float(_SECONDS.value[-1])
    recordings = [
        path
        for path in files.search(_INPUT.value)[0]
        if files.read_info(path).samples_at(_SAMPLE_RATE) >= most * _SAMPLE_RATE
    ]
    if not recordings:
        raise InputError(f'--input={_INPUT.value} has no recording of {most:g} s: lower --seconds')
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
        items, _ = find_audio(str(source), target)
        shards = plan_shards(items, 1e9, _SHARD_FILES.value)
        output = settings.target(codec.config, target, len(shards))
        job = EncodeJob(None, settings, output, None, codec)
        report = run_job(job, shards, dataclasses.asdict(settings), target, RunOptions(share='0/1'))
        assert report.files == _FILES.value

    return run


def _bare(model: Music2Latent, params, source: pathlib.Path) -> Callable[[], None]:
    """The model and its spectrogram in one program; nothing is padded or masked."""
    step, reach = model.config.samples_per_latent, model.config.spectrogram.reach
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
    """One file after another, as it comes."""
    from benchmarks import package

    def run() -> None:
        for path in sorted(source.iterdir()):
            audio, _ = soundfile.read(path, dtype='float32', always_2d=True)
            package.encode(network, audio.T, 1, 'cpu')

    return run


def _figures(seconds: float, runs: dict[str, list[float]]) -> dict[str, Any]:
    real_time = {
        name: [timing.rounded(seconds / run) for run in by_round] for name, by_round in runs.items()
    }
    return {
        'device': f'{jax.device_count()} {jax.devices()[0].device_kind}',
        'model': _MODEL.value,
        'files': _FILES.value,
        'audio_seconds': round(seconds, 1),
        'dtype': _DTYPE.value,
        'format': _FORMAT.value,
        'times_real_time': timing.medians(real_time),
        'times_as_fast': {
            f'corpus over {name}': timing.times_as_fast(runs, 'corpus', name)
            for name in runs
            if name != 'corpus'
        },
    }


def _rows(figures: dict[str, Any]) -> list[tuple[Any, ...]]:
    ratios = figures['times_as_fast']
    return [('way', 'x real time', 'corpus over it')] + [
        (name, value, ratios.get(f'corpus over {name}', {'median': ''})['median'])
        for name, value in figures['times_real_time'].items()
    ]


if __name__ == '__main__':
    command.run(main)
