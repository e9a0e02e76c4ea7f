"""Runs that keep a part of the model that they start from, and the latents that stay valid."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax import EncoderDecoder
from m2l_jax.checkpoint.store import load_model, read_settings
from m2l_jax.codec.weights import convert, open_weights
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import FROZEN
from m2l_jax.training.loop import train_and_evaluate
from m2l_jax.training.state import ravel, trained_numbers
from tests.small_training import make_config
from tests.training.runs import assert_identical, first_state, killed_after


@pytest.fixture
def config(corpus, whole):
    config = make_config(corpus).unlock()
    config.init_from = str(whole.workdir)
    config.optimizer.learning_rate = 1e-3
    return config


@pytest.mark.parametrize('freeze', FROZEN)
def test_a_mask_is_true_for_the_numbers_of_other_parts(whole, freeze):
    params = whole.state.params
    expected = ravel(
        {
            part: jax.tree.map(lambda leaf: jnp.full(leaf.shape, part not in FROZEN[freeze]), tree)  # noqa: B023
            for part, tree in params.items()
        }
    )
    mask = np.asarray(trained_numbers(params, freeze, expected.size + 3))
    np.testing.assert_array_equal(mask[:-3], expected)


def assert_same_bits(ours, theirs):
    assert_identical(
        *(jax.tree.map(lambda leaf: leaf.view(np.int32), each) for each in (ours, theirs))
    )


def assert_frozen(state, initial, freeze):
    """Only the parameters and the average of the other parts have changed, each of them."""
    for tree in (state.params, state.ema_params):
        for part, params in tree.items():
            ours, theirs = (jax.tree.map(np.asarray, each) for each in (params, initial[part]))
            if part in FROZEN[freeze]:
                assert_same_bits(ours, theirs)
            else:
                pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
                assert not any(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope='module')
def tuned(corpus, whole, tmp_path_factory):
    """A run that froze the encoder, was killed, and went on; its state and folder."""
    config = make_config(corpus).unlock()
    config.init_from, config.freeze = str(whole.workdir), 'encoder'
    config.optimizer.name, config.optimizer.weight_decay = 'adamw', 0.1
    config.optimizer.ema_profiles = (0.1, 0.2)
    config.train.update(accumulate=2, shard_optimizer=True)
    workdir = tmp_path_factory.mktemp('tuned') / 'run'
    with killed_after(5):
        train_and_evaluate(config, workdir)
    return train_and_evaluate(config, workdir), workdir


def test_a_frozen_encoder_stays_as_it_was(whole, tuned):
    """Under weight decay, in parts, with a shared optimiser, and over a kill."""
    state, workdir = tuned
    assert (int(state.step), int(state.skipped)) == (6, 0)
    assert_frozen(state, whole.state.ema_params, 'encoder')
    assert read_settings(workdir)[2]['freeze'] == 'encoder'


def test_an_average_chosen_later_has_the_encoder_as_it_was(whole, tuned, tmp_path):
    convert(str(tuned[1]), tmp_path / 'model.safetensors', sigma_rel=0.1)
    model, params = open_weights(tmp_path / 'model.safetensors')
    assert_same_bits(params['encoder'], jax.device_get(whole.state.ema_params['encoder']))
    assert model.config.latents_of == load_model(tuned[1])[0].config.latents_of


def test_a_frozen_decoder_stays_as_it_was(whole, config, tmp_path):
    config.freeze = 'decoder'
    state = train_and_evaluate(config, tmp_path / 'run')
    assert_frozen(state, whole.state.ema_params, 'decoder')
    assert load_model(tmp_path / 'run')[0].config.latents_of == ()


def test_a_frozen_encoder_gives_the_first_models_latents(whole, tuned, music):
    first, second = EncoderDecoder(whole.workdir), EncoderDecoder(tuned[1])
    assert second.config.latents_of == (first.model_id,)
    assert first.config.latents_of == ()
    assert second.model_id != first.model_id
    song = sorted(music.rglob('*.wav'))[0]
    np.testing.assert_array_equal(first.encode(song), second.encode(song))


def test_ids_of_models_with_the_same_latents_travel_with_the_model(tuned, tmp_path):
    run = EncoderDecoder(tuned[1])
    for name in ('a.safetensors', 'a.pt', 'folder'):
        convert(str(tuned[1]), tmp_path / name)
        codec = EncoderDecoder(tmp_path / name)
        assert codec.config.latents_of == run.config.latents_of
        assert codec.model_id == run.model_id


def test_ids_are_kept_while_the_encoder_is(whole, tuned, config, tmp_path, monkeypatch):
    """Two runs from the tuned model: one keeps its encoder, the other trains it."""
    ids = tuple(EncoderDecoder(each).model_id for each in (tuned[1], whole.workdir))
    config.init_from = str(tuned[1])
    config.train.steps = 3
    for freeze, expected in {'encoder': ids, '': ()}.items():
        config.freeze = freeze
        train_and_evaluate(config, tmp_path / f'run{freeze}')
        assert load_model(tmp_path / f'run{freeze}')[0].config.latents_of == expected


def test_an_encoder_that_trains_again_makes_other_latents(whole, config, tmp_path, caplog):
    workdir = tmp_path / 'run'
    config.freeze = 'encoder'
    with killed_after(4):
        train_and_evaluate(config, workdir)
    assert load_model(workdir)[0].config.latents_of
    config.freeze = 'decoder'
    message = rf"trained with config\.freeze='encoder', not 'decoder': .*init_from={workdir}"
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, workdir)
    config.freeze = ''
    with caplog.at_level(logging.WARNING):
        train_and_evaluate(config, workdir)
    assert "resuming with another config.freeze: 'encoder' -> ''" in caplog.text
    first = EncoderDecoder(whole.workdir).model_id
    assert f'the model no longer decodes latents of {first}' in caplog.text
    assert 'latents_of' not in caplog.text
    assert load_model(workdir)[0].config.latents_of == ()
    assert 'freeze' not in read_settings(workdir)[2]


def test_what_cannot_be_frozen_is_told(config, tmp_path, monkeypatch):
    for fields, message in (
        ({'freeze': 'unet'}, r"config\.freeze='unet' must be one of encoder, decoder, or '' to"),
        (
            {'freeze': 'encoder', 'init_from': ''},
            r"config\.freeze='encoder' would keep random parameters: .* config\.init_from",
        ),
        (
            {'freeze': 'encoder', 'model': {'param_dtype': 'bfloat16'}},
            r"config\.model\.param_dtype=bfloat16 rounds .*config\.freeze='encoder' keeps: use flo",
        ),
        ({'model': {'latents_of': ('a',)}}, r'config\.model\.latents_of is noted by training itse'),
    ):
        changed = config.copy_and_resolve_references()
        changed.update(fields)
        with pytest.raises(InputError, match=message):
            train_and_evaluate(changed, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
    config.model.param_dtype = 'bfloat16'
    state = first_state(config, tmp_path / 'run', monkeypatch)  # nothing is kept: it may be rounded
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.bfloat16.dtype}
