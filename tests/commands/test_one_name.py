"""All commands by one name."""

import importlib.metadata
import subprocess
import sys

import pytest

from tests.commands.test_commands import assert_told, run_python


def m2l(*arguments):
    return run_python('-m', 'm2l_jax', *arguments)


@pytest.mark.parametrize('arguments', [(), ('--help',)])
def test_without_a_command_all_are_listed(arguments):
    listed = m2l(*arguments)
    assert listed.returncode == 0
    assert 'plot        Writes the curves of a training run as JSON and as a picture.' in (
        line.strip() for line in listed.stdout.splitlines()
    )
    assert '__' not in listed.stdout


def test_the_version_is_told():
    assert m2l('--version').stdout.strip() == importlib.metadata.version('m2l-jax')


def test_a_reader_that_leaves_early_is_no_error():
    """As `m2l | head` does."""
    with subprocess.Popen(
        [sys.executable, '-m', 'm2l_jax'], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        listing.stdout.close()
        assert listing.stderr.read() == b''


def test_a_command_gets_the_other_arguments(tmp_path):
    direct = run_python('-m', 'm2l_jax.plot', f'--workdir={tmp_path}', f'--output={tmp_path}')
    assert_told(direct, 'error: ')
    named = m2l('plot', f'--workdir={tmp_path}', f'--output={tmp_path}')
    assert (named.returncode, named.stderr) == (direct.returncode, direct.stderr)


@pytest.mark.parametrize(
    ('name', 'hint'),
    [('encod', 'did you mean encode?'), ('x', '`m2l --help` lists the commands')],
)
def test_an_unknown_command_is_told_with_a_hint(name, hint):
    assert_told(m2l(name), f'error: there is no command {name!r}: {hint}')
