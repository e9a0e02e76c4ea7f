import jax
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.placement import choose_devices, find_devices
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'm.safetensors'
    small_model.save(path)
    return path


def test_the_arguments_of_the_pytorch_package_are_taken(checkpoint):
    expected = EncoderDecoder(checkpoint).encode(make_music(0.2))
    for codec in (
        EncoderDecoder(load_path_inference=checkpoint, device='cpu'),
        EncoderDecoder(str(checkpoint), 'cpu:1'),
        EncoderDecoder(checkpoint, device=jax.local_devices()[2]),
    ):
        np.testing.assert_array_equal(codec.encode(make_music(0.2)), expected)
    with pytest.raises(InputError, match='load_path_inference and checkpoint are one'):
        EncoderDecoder(checkpoint, load_path_inference=checkpoint)


def test_names_of_devices():
    devices = jax.local_devices()
    assert choose_devices(None, None) is None
    assert choose_devices('cpu', None) == (devices[0],)
    assert choose_devices('cpu:3', None) == (devices[3],)
    assert choose_devices(None, devices) == tuple(devices)
    for name in ('cuda', 'cuda:1', 'mps', 'cpu:4', 'cpu:-1', 'cpu:x', '0'):
        with pytest.raises(InputError, match=f"device='{name}' is not there: JAX has cpu:0, cpu:1"):
            choose_devices(name, None)
    with pytest.raises(InputError, match='pass either device or devices'):
        choose_devices('cpu', devices)
    with pytest.raises(InputError, match='names a device twice'):
        choose_devices(None, devices + devices[:1])
    for wrong in ([], ['cpu'], 'cpu', devices[0]):
        with pytest.raises(InputError, match=r"must be a list of JAX's: jax.local_devices\(\)"):
            choose_devices(None, wrong)


def test_devices_are_found_again_by_their_names():
    devices = jax.local_devices()[1:3]
    assert find_devices([('cpu', 2), ('cpu', 1)]) == (devices[1], devices[0])
    assert find_devices(None) is None
    assert find_devices([('cpu', 0), ('cpu', 99)]) is None
    assert find_devices([('gpu', 0)]) is None
