import json
import math
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy

from m2l_jax.checkpoint.store import load_model
from m2l_jax.interface.errors import InputError
from m2l_jax.training.curves import read_curves
from m2l_jax.training.loop import train_and_evaluate
from tests.conftest import largest_file, on_one_device
from tests.small_training import make_config
from tests.training.runs import assert_identical, first_state, killed_after
from tools import carry
from tools.carry import pack, unpack


@pytest.fixture(scope='module')
def halfway(corpus, tmp_path_factory):
    """A run of six steps that ended after the fourth, with a checkpoint of the third."""
    workdir = tmp_path_factory.mktemp('runs') / 'halfway'
    with killed_after(4):
        train_and_evaluate(make_config(corpus), workdir)
    return workdir


def test_what_is_carried_exactly_goes_on_to_the_last_bit(corpus, halfway, whole, tmp_path, caplog):
    content, about = pack(halfway, 'exact')
    assert (about['form'], about['step']) == ('exact', 3)
    unpack(content, about, tmp_path / 'there')
    carried = train_and_evaluate(make_config(corpus), tmp_path / 'there')
    assert int(carried.step) == 6
    assert_identical(carried, whole.state)
    assert not [record for record in caplog.records if 'not what' in record.message]
    # The curves come along.
    curves = read_curves(tmp_path / 'there')
    assert list(curves['loss']) == [2, 4, 6]
    before = read_curves(halfway)['loss']
    assert curves['loss'][2] == before[2]


def test_what_is_carried_lightly_goes_on_from_the_average(corpus, halfway, tmp_path, monkeypatch):
    exact = first_state(make_config(corpus), halfway, monkeypatch)
    content, about = pack(halfway, 'light')
    size = sum(leaf.size for leaf in jax.tree.leaves(exact.params))
    assert 2 * size < len(content) < 2 * size + 20_000  # names, shapes and curves are the rest
    unpack(content, about, tmp_path / 'there')

    light = first_state(make_config(corpus), tmp_path / 'there', monkeypatch)
    rounded = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(np.float16).astype(np.float32), exact.ema_params
    )
    assert_identical(light.ema_params, rounded)
    assert_identical(light.params, rounded)
    assert_identical(load_model(tmp_path / 'there')[1], rounded)
    assert (int(light.step), int(light.skipped)) == (3, 0)
    adam, schedule = light.opt_state[1]
    assert isinstance(adam, optax.ScaleByAdamState)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(adam))  # as of a fresh optimiser
    assert int(schedule.count) == 3
    assert jax.tree.structure(light.opt_state) == jax.tree.structure(exact.opt_state)


def test_what_is_unpacked_where_it_does_not_fit_leaves_nothing(halfway, tmp_path):
    content, about = pack(halfway, 'exact')
    with (
        largest_file(2000),
        pytest.raises(InputError, match=r'could not be written .*File too'),
    ):
        unpack(content, about, tmp_path / 'new' / 'there')
    assert not list(tmp_path.iterdir())


def test_curves_that_are_not_finite_are_carried_as_json(halfway, tmp_path, monkeypatch):
    curves = {'loss': {1: 2.5, 2: math.nan, 3: math.inf}}
    monkeypatch.setattr(carry, 'read_curves', lambda folder: curves)
    content, about = pack(halfway, 'light')
    text = safetensors.numpy.load(content)['curves'].tobytes()
    assert json.loads(text, parse_constant=pytest.fail)['loss'] == {'1': 2.5, '2': None, '3': None}
    unpack(content, about, tmp_path / 'there')
    np.testing.assert_array_equal(
        list(read_curves(tmp_path / 'there')['loss'].values()), [2.5, np.nan, np.nan]
    )


def test_checkpoints_are_never_mixed(halfway):
    with pytest.raises(InputError, match='halfway holds checkpoints already: choose another'):
        unpack(*pack(halfway, 'light'), halfway)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(InputError, match='holds no checkpoints: pass the --workdir'):
        pack(tmp_path, 'exact')


def test_parts_of_another_version_are_told(halfway, tmp_path):
    content, about = pack(halfway, 'exact')
    about['config']['model']['latent_channels'] = 8
    with pytest.raises(InputError, match='it was packed by another version of m2l_jax'):
        unpack(content, about, tmp_path / 'there')
    assert not (tmp_path / 'there').exists()


def run(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'tools.carry', *arguments],
        cwd=pathlib.Path(carry.__file__).parents[1],
        env=on_one_device(),
        capture_output=True,
        text=True,
    )


def assert_told(result, message):
    assert result.returncode == 1
    assert message in result.stderr
    assert 'Traceback' not in result.stderr


def test_carry_writes_into_no_bucket(tmp_path):
    result = run(f'--from={tmp_path}', '--to=gs://bucket/parts')
    assert_told(result, 'gs://bucket/parts is no folder: mount the bucket')
    result = run(f'--from={tmp_path}', f'--to={tmp_path / "parts"}')
    assert_told(result, f'{tmp_path} holds no checkpoints')
    assert not (tmp_path / 'parts').exists()
    assert_told(run(f'--from={tmp_path}'), '--to')


def test_the_command_packs_and_unpacks(halfway, tmp_path):
    parts, there = tmp_path / 'parts', tmp_path / 'there'
    result = run(f'--from={halfway}', f'--to={parts}', '--form=light', '--part_megabytes=0.01')
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f'{halfway} -> {parts}: step 3, ')
    result = run(f'--from={parts}', f'--to={there}')
    assert result.stdout == f'{parts} -> {there}: step 3, light\n'
    assert load_model(there)[0].config == load_model(halfway)[0].config
