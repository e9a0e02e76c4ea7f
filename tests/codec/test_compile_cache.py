import pathlib

import jax
import pytest

from m2l_jax.codec.compile_cache import use_compile_cache

NAME = 'jax_compilation_cache_dir'


@pytest.fixture(autouse=True)
def cache():
    """That of the tests, put back."""
    before = jax.config.jax_compilation_cache_dir
    yield before
    jax.config.update(NAME, before)


def test_a_folder_that_jax_was_told_of_stays(cache):
    assert cache is not None
    use_compile_cache()
    assert jax.config.jax_compilation_cache_dir == cache


def test_else_it_is_in_the_users_cache_folder(monkeypatch):
    jax.config.update(NAME, None)
    monkeypatch.setenv('XDG_CACHE_HOME', '/big/caches')
    use_compile_cache()
    assert jax.config.jax_compilation_cache_dir == '/big/caches/m2l_jax/xla'


@pytest.mark.parametrize('empty', [True, False])
def test_without_such_a_folder_it_is_where_the_system_has_it(monkeypatch, empty):
    jax.config.update(NAME, None)
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    if empty:
        monkeypatch.setenv('XDG_CACHE_HOME', '')
    use_compile_cache()
    expected = pathlib.Path.home() / '.cache' / 'm2l_jax' / 'xla'
    assert jax.config.jax_compilation_cache_dir == str(expected)
