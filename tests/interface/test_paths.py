import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import make_folder, replaced_file


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
