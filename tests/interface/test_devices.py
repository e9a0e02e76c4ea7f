import os
import subprocess
import sys

import pytest

from benchmarks import small_model


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'm.safetensors'
    small_model.save(path)
    return path


def run_without_devices(*arguments):
    environment = {**os.environ, 'JAX_PLATFORMS': 'nonsense'}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_platform_that_is_not_there_ends_a_command_with_a_line(checkpoint, tmp_path):
    result = run_without_devices(
        '-m', 'm2l_jax.convert', f'--from={checkpoint}', f'--to={tmp_path / "model"}'
    )
    assert result.returncode == 1
    assert result.stderr.startswith('error: JAX finds no device for JAX_PLATFORMS=nonsense (')
    assert result.stderr.endswith('): set JAX_PLATFORMS=cpu, or unset it\n')
    assert result.stderr.count('\n') == 1


def test_a_platform_that_is_not_there_is_an_input_error(checkpoint):
    script = (
        'import sys, m2l_jax\n'
        'try:\n'
        '    m2l_jax.EncoderDecoder(sys.argv[1])\n'
        'except m2l_jax.InputError as error:\n'
        '    print(error)\n'
    )
    result = run_without_devices('-c', script, checkpoint)
    assert result.stdout.startswith('JAX finds no device for JAX_PLATFORMS=nonsense (')
