import json

import pytest

from m2l_jax.interface.errors import InputError
from tools.carry import read_parts, write_parts

CONTENT = bytes(range(256)) * 10


def test_parts_make_the_content_again(tmp_path):
    paths = write_parts(tmp_path / 'parts', CONTENT, 1000, {'step': 3})
    assert [path.stat().st_size for path in paths[:-1]] == [1000, 1000, 560]
    assert set(paths) == set((tmp_path / 'parts').iterdir())  # nothing half-written
    content, manifest = read_parts(tmp_path / 'parts')
    assert content == CONTENT
    assert manifest['step'] == 3


def test_only_the_earlier_parts_are_replaced(tmp_path):
    (tmp_path / 'film.part').touch()
    write_parts(tmp_path, CONTENT, 1000, {})
    paths = write_parts(tmp_path, CONTENT[1:], 2000, {})
    assert set(tmp_path.iterdir()) == {*paths, tmp_path / 'film.part'}
    assert read_parts(tmp_path)[0] == CONTENT[1:]


def test_what_was_there_is_whole_if_parts_of_another_size_fail(tmp_path, monkeypatch):
    write_parts(tmp_path, CONTENT, 1000, {})
    monkeypatch.setattr('json.dumps', lambda *_, **__: 1 / 0)  # before the manifest is written
    with pytest.raises(ZeroDivisionError):
        write_parts(tmp_path, CONTENT, 900, {})
    assert read_parts(tmp_path)[0] == CONTENT
    assert len(list(tmp_path.iterdir())) == 4  # and nothing of the others is left


def damage(path):
    path.write_bytes(path.read_bytes()[:-1] + b'x')


@pytest.mark.parametrize(
    ('number', 'change', 'message'),
    [
        (
            0,
            lambda path: path.unlink(),
            r'0-\w+\.part cannot be read \(No such file or directory\)',
        ),
        (1, damage, r'1-\w+\.part is damaged \(1000 bytes\): copy it again'),
        (
            2,
            lambda path: path.write_bytes(b''),
            r'2-\w+\.part is damaged \(0 bytes\): copy it again',
        ),
        (3, damage, r'manifest\.json is damaged: copy it again'),
        (3, lambda path: path.unlink(), r'manifest\.json does not exist: pass the folder'),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path, number, change, message):
    change(write_parts(tmp_path, CONTENT, 1000, {})[number])
    with pytest.raises(InputError, match=message):
        read_parts(tmp_path)


@pytest.mark.parametrize('name', ['../secret', '/etc/hostname'])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, name):
    write_parts(tmp_path, CONTENT, 10_000, {})
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    manifest['parts'][0]['name'] = name
    (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r'manifest\.json is damaged'):
        read_parts(tmp_path)
