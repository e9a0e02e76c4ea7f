"""Four fake CPU devices for the whole test run, and the small things that many tests share."""

import contextlib
import os
import pathlib
import resource
import shutil
import signal

from tests.xla_flags import QUICK_FLAGS, fake_devices

# A shell has what it runs in the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = fake_devices(4)
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
# What is compiled is small and run a few times only: compiling is what takes the time.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = 'true'
# Many tests and commands compile the same, if only a sum; so does the next run.
CACHE = pathlib.Path(__file__).parents[1] / 'build' / 'test-cache'
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import jax
import numpy as np
import pytest
import soundfile
from huggingface_hub import close_session, constants

from m2l_jax.cpu_kernels import patches, statistics, strided, winograd
from m2l_jax.interface.devices import compute_once
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from tests.hub_stand_in import Hub

# They come first: one that began last would run on alone where files are tested side by side.
LONGEST = (
    'test_code_blocks.py',
    'distributed/test_job.py',
    'training/test_step.py',
    'parity/test_migration.py',
    'notebooks/test_notebooks.py',
    'commands/test_commands.py',
    'training/test_loop.py',
    'codec/test_encoder_decoder.py',
    'parity/test_training.py',
    'parity/test_model.py',
    'benchmarks/test_benchmarks.py',
    'tools/test_carry.py',
    'model/test_autoencoder.py',
    'evaluation/test_quality.py',
)


def pytest_collection_modifyitems(items):
    ranks = {pathlib.Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope='session')
def tiny_config() -> ModelConfig:
    """Every part of the architecture at a size that compiles and runs in seconds."""
    return ModelConfig(
        base_channels=4,
        channel_multipliers=(1, 2, 2, 2),
        downsampling=((4, 1), (2, 2), (2, 4)),
        attention=(False, False, False, True),
        attention_heads=2,
        unet_blocks=1,
        bottleneck_channels=16,
        bottleneck_blocks=1,
        latent_channels=8,
        embedding_channels=16,
    )


@pytest.fixture(scope='session')
def tiny_params(tiny_config):
    """Its initial parameters."""
    return compute_once(lambda: Music2Latent(tiny_config).init_params(jax.random.key(0)))


def make_music(seconds: float, sample_rate: int = 44_100, channels: int = 1, seed: int = 0):
    """Decaying harmonic notes with a little noise, `[channels, samples]`, float32."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    signal = 0.003 * random.standard_normal((channels, len(time)))
    for onset in np.arange(0, seconds, 0.25):
        pitch = 110 * 2 ** (random.integers(36) / 12)
        envelope = np.where(time >= onset, np.exp(-4 * np.maximum(time - onset, 0)), 0)
        for harmonic in range(1, 8):
            wave = np.sin(2 * np.pi * pitch * harmonic * time + random.uniform(0, 6, (channels, 1)))
            signal += 0.15 / harmonic * envelope * wave
    # Nothing at the Nyquist frequency, whose bin the representation drops.
    signal[:, 1:-1] = (signal[:, :-2] + 2 * signal[:, 1:-1] + signal[:, 2:]) / 4
    return np.clip(signal, -1, 1).astype(np.float32)


def is_part_of(crop, waveform, tolerance):
    """Whether a crop is found in a signal, `[samples]` both."""
    starts = np.arange(len(waveform) - len(crop) + 1)
    for sample in range(len(crop)):  # a few samples leave only one start
        starts = starts[np.abs(waveform[starts + sample] - crop[sample]) <= tolerance]
    return len(starts) > 0


@pytest.fixture
def in_strips(monkeypatch):
    """Kernels for CPUs compute small layers as they do large ones, in as many strips as can be."""
    for module in (winograd, strided, patches, statistics):
        monkeypatch.setattr(module, '_STRIP_BYTES', 0)
    for module in (winograd, strided, patches):
        monkeypatch.setattr(module, '_LEAST_OPERATIONS', 0)
    monkeypatch.setattr(winograd, '_GRADIENT_STRIP_BYTES', 0)
    monkeypatch.setattr(winograd, '_LEAST_CHANNELS', 0)
    monkeypatch.setattr(patches, '_LEAST_INPUTS', 0)
    monkeypatch.setattr(patches, '_LEAST_OUTPUTS', 0)
    monkeypatch.setattr(statistics, '_LEAST_BYTES', 0)


@pytest.fixture(scope='session')
def music(tmp_path_factory):
    """A folder with a mono and a stereo file of three seconds, which no test changes."""
    folder = tmp_path_factory.mktemp('music')
    soundfile.write(folder / 'mono.wav', make_music(3, seed=1).T, 44_100)
    soundfile.write(folder / 'stereo.flac', make_music(3, channels=2, seed=2).T, 44_100)
    return folder


@pytest.fixture
def music_folder(music, tmp_path):
    """A copy of it, to change."""
    return shutil.copytree(music, tmp_path / 'music')


def on_one_device() -> dict[str, str]:
    """The environment of a command that sees what the tests set, but for their four devices."""
    return {**os.environ, 'XLA_FLAGS': QUICK_FLAGS}


@contextlib.contextmanager
def largest_file(size: int):
    """The system refuses to write files beyond so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A stand-in of the Hugging Face Hub, which this process uses, with an empty cache."""
    with Hub() as hub:
        template = hub.url + '/{repo_id}/resolve/{revision}/{filename}'
        for name, value in {
            'ENDPOINT': hub.url,
            'HUGGINGFACE_CO_URL_TEMPLATE': template,
            'HF_HUB_CACHE': str(tmp_path / 'hub'),
            'HF_TOKEN_PATH': str(tmp_path / 'token'),
            'HF_HUB_DISABLE_XET': True,
            'HF_HUB_OFFLINE': False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv('HF_TOKEN', raising=False)
        close_session()
        yield hub
    close_session()
