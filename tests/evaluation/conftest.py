import jax
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.evaluation import quality
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.conftest import make_music


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Two models, and the second once more as the one that is fetched."""
    folder = tmp_path_factory.mktemp('models')
    params = small_model.random_params()
    save_torch_model(folder / 'a.safetensors', small_model.CONFIG, params)
    louder = jax.tree.map(lambda leaf: 1.5 * leaf, params)
    save_torch_model(folder / 'b.safetensors', small_model.CONFIG, louder)
    soundfile.write(folder / 'a.wav', make_music(0.8).T, 44_100)
    return folder


@pytest.fixture
def without_levels(monkeypatch):
    """Replaces the errors by noise level, which take most of the time, by a sum of the weights."""

    def measure(codec, clips):
        return {'latent_gain': float(sum(map(jax.numpy.sum, jax.tree.leaves(codec.params))))}

    monkeypatch.setattr(quality, 'measure_noise_levels', measure)
