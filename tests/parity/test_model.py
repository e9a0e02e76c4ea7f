"""The same weights, input and noise in both: the same numbers."""

import jax
import numpy as np
import pytest

from tests.parity.small import CONFIG, require_reference

require_reference()

import music2latent.hparams
import torch
from music2latent import inference

from m2l_jax.codec.chunks import Chunk, Chunking
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.rows import channel_key, decoding_noise
from m2l_jax.evaluation import parity
from m2l_jax.evaluation.parity import compare_with_reference, injected_noise
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model
from m2l_jax.torch_weights.names import tensor_shapes
from m2l_jax.torch_weights.reference import random_tensors, reference_network, state_dict_of
from m2l_jax.torch_weights.state_dict import from_state_dict
from tests.conftest import make_music

LATENT = CONFIG.time_downsampling * CONFIG.spectrogram.hop  # samples
OVERLAP = 3 * CONFIG.spectrogram.hop


@pytest.fixture(scope='module')
def tensors():
    return random_tensors(CONFIG)


@pytest.fixture(scope='module')
def codec(tensors):
    return EncoderDecoder.from_params(Music2Latent(CONFIG), from_state_dict(tensors, CONFIG))


def snr(ours, reference):
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return -20 * np.log10(np.linalg.norm(ours - reference) / np.linalg.norm(reference))


def test_the_package_has_the_tensors_of_the_name_table(tensors):
    assert {name: tensor.shape for name, tensor in tensors.items()} == tensor_shapes(CONFIG)


def test_hyperparameters_are_back_afterwards():
    before = dict(vars(music2latent.hparams))
    with reference_network(CONFIG):
        assert music2latent.hparams.base_channels == CONFIG.base_channels
    assert dict(vars(music2latent.hparams)) == before


def test_a_written_file_loads_strictly(tensors, tmp_path):
    params = from_state_dict(tensors, CONFIG)
    save_torch_model(tmp_path / 'model.pt', CONFIG, params)
    content = torch.load(tmp_path / 'model.pt', weights_only=True)
    with reference_network(CONFIG) as network:
        network.load_state_dict(content['gen_state_dict'], strict=True)
        loaded = state_dict_of(network)
    for name, tensor in loaded.items():
        unused = '.proj_emb.' in name and name.startswith('decoder.')
        np.testing.assert_array_equal(tensor, 0 if unused else tensors[name], err_msg=name)
    # And what the package saves comes back, without a record of its sizes.
    with reference_network(CONFIG, tensors) as network:
        torch.save({'gen_state_dict': network.state_dict()}, tmp_path / 'theirs.pt')
    model, loaded = load_torch_model(tmp_path / 'theirs.pt', attention_heads=2)
    assert model.config == CONFIG
    np.testing.assert_array_equal(
        loaded['unet']['conv_in']['kernel'], params['unet']['conv_in']['kernel']
    )


@pytest.mark.parametrize('channels', [1, 3])
def test_every_stage(tensors, channels):
    music = make_music(0.15, channels=channels)
    results = compare_with_reference(CONFIG, tensors, music)
    names = [result.name for result in results]
    assert names[:2] == ['spectrogram', 'encoder level 0']
    assert names[-4:] == ['denoised', 'waveform', 'decode, 1 step', 'decode, 3 steps']
    assert [result.name for result in results if not result.passed] == []
    latents = results[names.index('latents')]
    assert latents.shape == (channels, (6615 - OVERLAP) // LATENT, 8)
    assert latents.relative_l2 <= 2e-5


def test_one_wrong_weight_is_seen(tensors):
    """The comparison is not blind: a change of a tenth in one layer fails what follows it."""
    wrong = {**tensors, 'up_layers.10.weight': 1.1 * tensors['up_layers.10.weight']}
    music = make_music(0.15)
    codec = EncoderDecoder.from_params(Music2Latent(CONFIG), from_state_dict(wrong, CONFIG))
    with jax.default_matmul_precision('highest'):  # as above, and so compiled before
        ours = parity._run_ours(codec, music)
    with reference_network(CONFIG, tensors) as network:
        theirs = parity._run_reference(network, CONFIG, music)
    results = [parity.measure(name, ours[name], theirs[name], 'float32') for name in theirs]
    failed = [result.name for result in results if not result.passed]
    assert failed[:3] == ['denoised', 'waveform', 'decode, 1 step']


# Over chunks of 3: with a rest and without.
@pytest.mark.parametrize(('latents', 'rows'), [(10, 4), (12, 1)])
def test_long_audio_in_chunks(codec, tensors, latents, rows):
    music = make_music(0.2, channels=2)[:, : latents * LATENT + OVERLAP + 100]
    length = 3 * LATENT + 17
    ours = codec.encode(music, max_waveform_length=length, max_batch_size=rows)
    # The package decodes one chunk more, and drops it, where nothing is left over.
    unused = [Chunk(0, 3)] * (latents % 3 == 0)
    noise = [
        np.asarray(
            decoding_noise(CONFIG, channel_key(0, channel)[None], chunk.positions[None], step)
        )
        for chunk in (*Chunking(3).cut(latents), *unused)
        for channel in range(2)
        for step in range(3)
    ]
    with reference_network(CONFIG, tensors) as network:
        trainer = type('Trainer', (), {'gen': network})()
        theirs = inference.encode_audio_inference(music, trainer, length, rows, 'cpu').numpy()
        with injected_noise(noise):
            decoded = inference.decode_latent_inference(theirs, trainer, length, 1, 2, 'cpu')
    assert ours.shape == (2, 8, latents)
    assert snr(ours, theirs) >= 95
    again = codec.decode(theirs, 2, max_waveform_length=length, max_batch_size=rows)
    assert snr(again, decoded) >= 80


def test_features(codec, tensors):
    music = make_music(0.15, channels=2)
    with reference_network(CONFIG, tensors) as network:
        trainer = type('Trainer', (), {'gen': network})()
        theirs = inference.encode_audio_inference(music, trainer, 10**6, 1, 'cpu', True).numpy()
    assert snr(codec.encode(music, extract_features=True), theirs) >= 95


def test_inputs_of_every_kind_give_the_same(codec, tmp_path):
    import jax.numpy as jnp
    import soundfile

    music = make_music(0.15)
    expected = codec.encode(music)
    soundfile.write(tmp_path / 'a.wav', music.T, 44_100, subtype='FLOAT')
    for same in (music[0], jnp.asarray(music), torch.from_numpy(music), tmp_path / 'a.wav'):
        np.testing.assert_array_equal(codec.encode(same), expected)
    np.testing.assert_array_equal(
        codec.decode(torch.from_numpy(expected)), codec.decode(expected[0])
    )
