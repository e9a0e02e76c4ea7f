import os
import signal
import subprocess
import sys
import time

import pytest

from m2l_jax.interface import paths
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import (
    create_file,
    make_folder,
    new_folder,
    remove_leftovers,
    replaced_file,
)

WRITER = """\
import sys
from m2l_jax.interface.paths import replaced_file
with replaced_file(sys.argv[1]) as partial:
    partial.write_text('half')
    print(partial.name, flush=True)
    sys.stdin.read()
"""


def start_writer(path):
    """A process that writes a file until its input ends, and the name that it writes to."""
    process = subprocess.Popen(
        [sys.executable, '-c', WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, path.with_name(process.stdout.readline().strip())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'deep' / 'a.txt'
    with replaced_file(path) as partial:
        partial.write_text('one')
        assert not path.exists()
    assert path.read_text() == 'one'

    def fail():
        with replaced_file(path) as partial:
            partial.write_text('half')
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == 'one'
    assert [file.name for file in path.parent.iterdir()] == ['a.txt']


def test_what_the_disk_refuses_is_one_line(tmp_path):
    (tmp_path / 'file').touch()
    with (
        pytest.raises(InputError, match=r'file/a\.txt cannot be written \('),
        replaced_file(tmp_path / 'file' / 'a.txt') as partial,
    ):
        partial.write_text('x')
    with (
        pytest.raises(InputError, match=r'b cannot be written \(No space left on device\)'),
        replaced_file(tmp_path / 'b'),
    ):
        raise OSError(28, 'No space left on device')


def test_a_buckets_address_is_refused():
    with pytest.raises(InputError, match=r'^gs://bucket/run is no folder: mount the bucket'):
        make_folder('gs://bucket/run')


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ('é' * 125 + '.txt')
    with replaced_file(path) as partial:
        partial.write_text('x')
    assert path.read_text() == 'x'


def test_leftovers_are_removed_once_their_process_is_gone(tmp_path):
    process, leftover = start_writer(tmp_path / 'deep' / 'a')
    (tmp_path / 'deep' / '.b.1.partial').write_text("a user's own")
    with process:
        remove_leftovers(tmp_path, deep=True)
        assert leftover.read_text() == 'half'
        process.send_signal(signal.SIGKILL)
    remove_leftovers(tmp_path, deep=False)
    assert leftover.exists()
    remove_leftovers(tmp_path, deep=True)
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['.b.1.partial']


def test_a_leftover_with_the_number_of_this_process_is_of_one_before(tmp_path):
    """In a container that is started anew, the command has the same number again."""
    with replaced_file(tmp_path / 'a') as partial:
        partial.write_text('x')
    (tmp_path / partial.name).write_text('half')
    remove_leftovers(tmp_path, deep=False)
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_another_machines_leftovers_are_removed_after_a_day(tmp_path, monkeypatch):
    process, leftover = start_writer(tmp_path / 'a')
    with process:
        process.kill()
    monkeypatch.setattr(paths, '_this_machine', lambda: '0' * 16)
    remove_leftovers(tmp_path, deep=True)
    assert leftover.exists()
    yesterday = time.time() - 90_000
    os.utime(leftover, (yesterday, yesterday))
    remove_leftovers(tmp_path, deep=True)
    assert not leftover.exists()


@pytest.mark.parametrize('has_links', [True, False])
def test_a_file_is_created_once(tmp_path, monkeypatch, has_links):
    def refuse(*arguments):
        raise OSError(95, 'Operation not supported')

    if not has_links:
        monkeypatch.setattr(os, 'link', refuse)
    assert create_file(tmp_path / 'a', 'first')
    assert not create_file(tmp_path / 'a', 'second')
    assert (tmp_path / 'a').read_text() == 'first'
    assert [path.name for path in tmp_path.iterdir()] == ['a']
    with pytest.raises(InputError, match=r'none/a cannot be written \(No such file'):
        create_file(tmp_path / 'none' / 'a', '')


def test_a_folder_made_in_vain_is_taken_away(tmp_path):
    (tmp_path / 'there').mkdir()

    def fail(path, name=None):
        with new_folder(tmp_path / path) as folder:
            assert folder.is_dir()
            if name:
                (folder / name).touch()
            raise KeyboardInterrupt

    for path in ('there', 'there/deep/deeper', 'new'):
        with pytest.raises(KeyboardInterrupt):
            fail(path)
    assert [path.name for path in tmp_path.rglob('*')] == ['there']
    with pytest.raises(KeyboardInterrupt):
        fail('new', 'a.txt')
    assert (tmp_path / 'new' / 'a.txt').exists()


def test_only_folders_that_were_made_are_taken_away(tmp_path):
    (tmp_path / 'users').mkdir()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / 'missing' / '..' / 'users'):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ['users']
    with (
        pytest.raises(InputError, match='cannot be made a folder'),
        new_folder(tmp_path / 'new' / ('a' * 300)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['users']


def test_a_bucket_is_no_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='mount the bucket'), new_folder('gs://bucket/run'):
        pass
    assert not list(tmp_path.iterdir())
