"""A codec in other processes and in programs that have set JAX up for themselves."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError
from m2l_jax.training.step import step_key
from tests.conftest import make_music, on_one_device

MUSIC = make_music(0.3)


class Latents:
    """A data set of latents, as PyTorch's loaders take it."""

    def __init__(self, codec):
        self._codec = codec

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self._codec.encode(MUSIC * (1 + index))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'm.safetensors'
    small_model.save(path)
    return path


@pytest.fixture(scope='module')
def codec(checkpoint):
    return EncoderDecoder(checkpoint)


def test_a_copy_is_the_same_model(codec):
    latents = codec.encode(MUSIC)
    program = codec._encode_program
    for copied in (copy.copy(codec), copy.deepcopy([codec])[0]):
        assert copied._encode_program is program  # compiled once
        assert copied.params is not codec.params
        assert copied.model_id == codec.model_id
        np.testing.assert_array_equal(copied.encode(MUSIC), latents)
    pickled = pickle.dumps(codec)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(codec.params))
    assert size < len(pickled) < size + 50_000
    copied = pickle.loads(pickled)
    assert copied.config == codec.config
    assert copied.model_id == codec.model_id
    np.testing.assert_array_equal(copied.decode(latents, seed=1), codec.decode(latents, seed=1))


def test_a_pickled_codec_finds_its_devices(checkpoint):
    codec = EncoderDecoder(checkpoint, devices=jax.local_devices()[1:3])
    copied = pickle.loads(pickle.dumps(codec))
    assert copied.devices == 2
    device_set = jax.tree.leaves(copied.params)[0].sharding.device_set
    assert device_set == set(jax.local_devices()[1:3])


def test_workers_of_a_data_loader_are_spawned(codec):
    data = pytest.importorskip('torch').utils.data
    loader = data.DataLoader(
        Latents(codec), batch_size=None, num_workers=1, multiprocessing_context='spawn'
    )
    for index, latents in enumerate(loader):
        np.testing.assert_array_equal(latents, codec.encode(MUSIC * (1 + index)))
    assert index == 1


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='nothing is forked here')
@pytest.mark.filterwarnings('ignore:os.fork')
def test_a_forked_process_is_told_and_does_not_hang(codec, checkpoint):
    latents = codec.encode(MUSIC)
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def work():
        for call in (
            lambda: codec.encode(MUSIC),
            lambda: codec.decode(latents),
            lambda: codec.model_id,
            lambda: pickle.dumps(codec),
            lambda: EncoderDecoder(checkpoint),
        ):
            try:
                call()
            except InputError as error:
                sender.send(str(error))

    codec.__dict__.pop('model_id', None)
    process = context.Process(target=work, daemon=True)
    process.start()
    for _ in range(5):
        assert receiver.poll(120), 'it hangs'
        assert 'was forked from one that used JAX' in receiver.recv()
    process.join()
    assert process.exitcode == 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='nothing is forked here')
def test_a_process_forked_before_jax_is_used_may_use_it(checkpoint):
    script = (
        'import os, sys, jax, numpy\n'
        'from m2l_jax import EncoderDecoder\n'
        'child = os.fork()\n'
        'if not child:\n'
        '    EncoderDecoder(sys.argv[1]).encode(numpy.zeros(9000, "float32"))\n'
        '    os._exit(7)\n'
        'sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n'
    )
    command = [sys.executable, '-c', script, checkpoint]
    assert subprocess.run(command, env=on_one_device()).returncode == 7


@pytest.mark.parametrize(
    'setting',
    [
        lambda: jax.enable_x64(True),
        lambda: jax.transfer_guard('disallow'),
        lambda: jax.transfer_guard('disallow_explicit'),
        lambda: jax.numpy_dtype_promotion('strict'),
        lambda: jax.numpy_rank_promotion('raise'),
        lambda: jax.default_prng_impl('rbg'),
        lambda: jax.threefry_partitionable(False),
        lambda: jax.debug_nans(True),
    ],
    ids=['x64', 'guard', 'explicit_guard', 'types', 'ranks', 'rbg', 'threefry', 'nans'],
)
def test_what_the_caller_sets_in_jax_changes_nothing(checkpoint, codec, setting):
    latents = codec.encode(MUSIC)
    waveform = codec.decode(latents, 2, seed=3)
    as_jax = jax.numpy.asarray(MUSIC)
    with setting():
        other = EncoderDecoder(checkpoint)
        for each in (codec, other, pickle.loads(pickle.dumps(codec))):
            encoded, decoded = each.encode(as_jax), each.decode(latents, 2, seed=3)
            assert encoded.dtype == decoded.dtype == np.float32
            np.testing.assert_array_equal(encoded, latents)
            np.testing.assert_array_equal(decoded, waveform)
        assert other.model_id == codec.model_id


def test_keys_of_training_are_the_same_under_another_implementation():
    expected = jax.random.key_data(step_key(3, 5))
    with jax.default_prng_impl('rbg'):
        np.testing.assert_array_equal(jax.random.key_data(step_key(3, 5)), expected)
    np.testing.assert_array_equal(
        expected, jax.random.key_data(jax.random.fold_in(jax.random.key(3), 5))
    )
