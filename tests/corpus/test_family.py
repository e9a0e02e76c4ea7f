"""Every kind of model, in every precision, encodes and decodes a corpus, here and on Ray.

A shard of the job is a kind: an actor of Ray, which takes seconds to start, works on all of them.
"""

import dataclasses
import itertools
import os
import pathlib

import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Item, RunOptions, Shard
from m2l_jax.corpus.ray import run_ray
from m2l_jax.corpus.run import Progress, run_local
from m2l_jax.corpus.store import read_any
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands.tiny import MODEL
from tests.conftest import make_music
from tests.corpus.family_job import BOTTLENECKS, CHANNELS, KINDS, FamilyJob

STEP, REACH = MODEL.samples_per_latent, MODEL.spectrogram.reach
FRAMES = {'mono': 6, 'stereo': 11}  # of the files, the second in two chunks


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp('family')
    (folder / 'music').mkdir()
    for number, (name, frames) in enumerate(FRAMES.items(), start=1):
        music = make_music(1, channels=number, seed=number)[:, : frames * STEP + REACH]
        soundfile.write(folder / 'music' / f'{name}.wav', music.T, 44_100)
    for (channels, planes), (bottleneck, fields) in itertools.product(
        CHANNELS.items(), BOTTLENECKS.items()
    ):
        config = dataclasses.replace(MODEL, channels=planes, **fields)
        params = small_model.random_params(config)
        save_torch_model(folder / f'{channels}-{bottleneck}.safetensors', config, params)
    return FamilyJob(str(folder), str(folder / 'music'), str(folder / 'local'))


def plan():
    return [Shard(number, (Item(f'{number}', 'nowhere', 1),)) for number in range(len(KINDS))]


def ledger_of(folder):
    ledger = Ledger(folder)
    ledger.claim({'model': 'family'}, [item for shard in plan() for item in shard.items])
    return ledger


@pytest.fixture(scope='module')
def local(job):
    """Runs all combinations here."""
    run_local(job, plan(), ledger_of(job.folder), Progress(plan()))
    return pathlib.Path(job.folder)


@pytest.fixture(scope='module')
def on_ray(job):
    """Runs all combinations in an actor."""
    cluster_utils = pytest.importorskip('ray.cluster_utils')
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    node = {'num_cpus': 1, 'include_dashboard': False, 'object_store_memory': 80_000_000}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    job = dataclasses.replace(job, folder=f'{job.checkpoints}/ray')
    options = RunOptions(ray=cluster.address, ray_cpus=1)
    try:
        run_ray(job, plan(), ledger_of(job.folder), Progress(plan()), options)
    finally:
        cluster.shutdown()
    return pathlib.Path(job.folder)


def results(folder, kind):
    """Latents and audio of each file."""
    place = folder / '-'.join(kind)
    latents = {name: read_any(place / 'latents' / f'{name}.npz') for name in FRAMES}
    audio = {
        name: soundfile.read(place / 'audio' / f'{name}.wav', always_2d=True)[0].T
        for name in FRAMES
    }
    return latents, audio


@pytest.mark.parametrize('kind', KINDS, ids='-'.join)
def test_every_model_encodes_and_decodes_a_corpus(local, kind):
    latents, audio = results(local, kind)
    for number, (name, frames) in enumerate(FRAMES.items(), start=1):
        stored, sound = latents[name], audio[name]
        stereo, discrete = kind[0] == 'stereo', kind[1] == 'discrete'
        assert (stored.kind, stored.levels) == (('tokens', 5) if discrete else ('latents', None))
        assert stored.latents.shape == (1 if stereo else number, 5, frames)
        assert stored.channel_mode == ('joint' if stereo else 'each')
        assert len(stored.chunk_offsets) == -(-frames // 8)
        assert sound.shape == (2 if stereo else number, frames * STEP + REACH)
        assert np.all(np.isfinite(sound))
        assert np.std(sound) > 0


@pytest.mark.parametrize('kind', KINDS, ids='-'.join)
def test_ray_gives_the_same(local, on_ray, kind):
    """To 60 dB, tokens exactly: the actor computes with another number of threads."""
    for here, there in zip(results(local, kind), results(on_ray, kind), strict=True):
        for name in FRAMES:
            one, other = (getattr(each[name], 'latents', each[name]) for each in (here, there))
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            one, other = (each.astype(np.float32) for each in (one, other))
            assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(one)
