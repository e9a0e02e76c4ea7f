import os
import pathlib

import jax
import pytest

from m2l_jax.codec import compile_cache
from m2l_jax.codec.compile_cache import use_compile_cache

NAME = 'jax_compilation_cache_dir'
LEAST = 'jax_persistent_cache_min_compile_time_secs'


@pytest.fixture(autouse=True)
def cache():
    """That of the tests, put back."""
    before = {name: getattr(jax.config, name) for name in (NAME, LEAST)}
    yield before[NAME]
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """As for a user who has set nothing, with a home of their own."""
    jax.config.update(NAME, None)
    for name in ('XDG_CACHE_HOME', 'M2L_JAX_CACHE', LEAST.upper()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    return tmp_path


def test_a_folder_that_jax_was_told_of_stays(cache):
    assert cache is not None
    use_compile_cache()
    assert jax.config.jax_compilation_cache_dir == cache


@pytest.mark.parametrize(
    ('variable', 'parts'),
    [
        ('M2L_JAX_CACHE', ('xla',)),
        ('XDG_CACHE_HOME', ('m2l_jax', 'xla')),
        ('HOME', ('.cache', 'm2l_jax', 'xla')),
    ],
)
def test_else_it_is_among_the_users_caches(unset, monkeypatch, variable, parts):
    monkeypatch.setenv(variable, str(unset / 'chosen'))
    use_compile_cache()
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
    assert folder.parent == unset.joinpath('chosen', *parts)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_empty_name_of_a_cache_folder_is_none(unset, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '')
    use_compile_cache()
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
    assert folder.parent == unset / 'home' / '.cache' / 'm2l_jax' / 'xla'


def test_machines_of_another_kind_have_another_folder(unset, monkeypatch):
    def folder(text):
        (unset / 'cpuinfo').write_text(text)
        jax.config.update(NAME, None)
        use_compile_cache()
        return jax.config.jax_compilation_cache_dir

    monkeypatch.setattr(compile_cache, '_CPU_INFO', unset / 'cpuinfo')
    old = folder('model name\t: A\nflags\t: sse avx\ncpu MHz\t: 2000.1\n\nmodel name\t: A\n')
    assert folder('model name\t: A\nflags\t: sse avx\ncpu MHz\t: 3100.7\n') == old
    assert folder('model name\t: A\nflags\t: sse avx avx512f\ncpu MHz\t: 2000.1\n') != old
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 1, 2, 3, 4, 5, 6})
    assert folder('model name\t: A\nflags\t: sse avx\ncpu MHz\t: 2000.1\n') != old


def test_where_it_cannot_be_written_a_line_says_so(unset, monkeypatch, caplog):
    (unset / 'file').touch()
    monkeypatch.setenv('M2L_JAX_CACHE', str(unset / 'file'))
    use_compile_cache()
    assert jax.config.jax_compilation_cache_dir is None
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    assert 'Not a directory' in record.getMessage()
    assert 'set JAX_COMPILATION_CACHE_DIR' in record.getMessage()


def test_who_wants_none_has_none(unset):
    jax.config.update('jax_enable_compilation_cache', False)
    try:
        use_compile_cache()
    finally:
        jax.config.update('jax_enable_compilation_cache', True)
    assert jax.config.jax_compilation_cache_dir is None
    assert not (unset / 'home').exists()


def test_all_is_kept_unless_the_user_has_said_from_which_time_on(unset, monkeypatch):
    jax.config.update(LEAST, 7.0)
    monkeypatch.setenv(LEAST.upper(), '7')
    use_compile_cache()
    assert getattr(jax.config, LEAST) == 7
    monkeypatch.delenv(LEAST.upper())
    use_compile_cache()
    assert getattr(jax.config, LEAST) == 0
