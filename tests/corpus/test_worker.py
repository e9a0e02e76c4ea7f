import pytest

from m2l_jax.corpus.worker import plan_jobs, run_jobs
from m2l_jax.interface.errors import InputError


def test_a_folders_tree_is_mirrored(tmp_path):
    for name in ('a.wav', 'deep/b.FLAC', 'deep/.hidden.wav', 'notes.txt'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'in' / name).touch()
    jobs = plan_jobs(tmp_path / 'in', {'.wav', '.flac'}, tmp_path / 'out', '.npz')
    assert [target.relative_to(tmp_path / 'out').as_posix() for _, target in jobs] == [
        'a.npz',
        'deep/b.npz',
    ]
    single = plan_jobs(tmp_path / 'in' / 'a.wav', {'.wav'}, tmp_path / 'out', '.npz')
    assert single == [(tmp_path / 'in' / 'a.wav', tmp_path / 'out' / 'a.npz')]


def test_names_that_would_collide_are_told(tmp_path):
    for name in ('a.wav', 'a.flac'):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r'a\.flac and .*a\.wav would both become .*a\.npz'):
        plan_jobs(tmp_path, {'.wav', '.flac'}, tmp_path / 'out', '.npz')
    with pytest.raises(InputError, match=r'a\.wav would be overwritten'):
        plan_jobs(tmp_path / 'a.wav', {'.wav'}, tmp_path, '.wav')
    with pytest.raises(InputError, match='no files to work on in'):
        plan_jobs(tmp_path, {'.npz'}, tmp_path / 'out', '.wav')


def test_one_that_fails_does_not_stop_the_others(tmp_path, capsys):
    done = []

    def work(path, target):
        if path == 'b':
            raise InputError('too short')
        done.append(path)
        return 'fine'

    assert run_jobs([(name, name.upper()) for name in 'abc'], work) == 1
    assert done == ['a', 'c']
    printed = capsys.readouterr()
    assert printed.err == 'error: b: too short\n'
    assert printed.out.startswith('a -> A: fine, 0.0 s\nc -> C: fine')
