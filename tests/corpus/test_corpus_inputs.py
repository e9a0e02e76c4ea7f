import os

import numpy as np
import pytest

from m2l_jax.audio import files
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.corpus.inputs import (
    check_mirrored,
    find_audio,
    latent_items,
    mirrored_name,
)
from m2l_jax.corpus.plan import Item
from m2l_jax.data.tfds import AudioRecords
from m2l_jax.interface.errors import InputError
from tests.corpus.test_latent_dataset import write_dataset as write_latents
from tests.data.test_tfds_audio import make_record
from tests.data.test_tfds_audio import write_dataset as write_audio


@pytest.fixture
def library(tmp_path):
    """Files that hold nothing but their size, for no header is read."""
    folder = tmp_path / 'library'
    sizes = {'a.wav': 3, 'one two/Bär 你好.FLAC': 0, 'one two/.hidden.wav': 1, '.junk/b.wav': 1}
    for name, size in {**sizes, 'notes.txt': 5, 'earlier.npz': 7, 'one two/x.npy.json': 2}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'x' * size)
    return folder


def names(inputs, output='/nowhere'):
    return [item.source for item in find_audio(str(inputs), output)[0]]


def test_files_have_names_paths_and_sizes(library):
    assert find_audio(str(library), '/nowhere')[0] == (
        Item('a.wav', f'{library}/a.wav', 3),
        Item('one two/Bär 你好.FLAC', f'{library}/one two/Bär 你好.FLAC', 0),
    )
    assert latent_items(str(library), '/nowhere') == (
        Item('earlier.npz', f'{library}/earlier.npz', 7),
    )


def test_patterns_files_and_several_inputs(library, monkeypatch):
    everything = ['a.wav', 'one two/Bär 你好.FLAC']
    assert names(library / '**/*.*') == everything
    assert names(library / 'a.wav') == ['a.wav']
    assert names(f'{library}/one two, {library}/a.wav,{library}') == everything
    (library / 'a, b.wav').touch()
    assert names(library / 'a, b.wav') == ['a, b.wav']
    monkeypatch.chdir(library)
    assert names('.') == ['a, b.wav', *everything]
    with pytest.raises(InputError, match='lacks a path before or after a comma'):
        names('a.wav,')


def test_links_and_folders_with_a_files_name(library):
    (library / 'folder.wav').mkdir()
    (library / 'lost.wav').symlink_to(library / 'gone.wav')
    (library / 'linked.wav').symlink_to(library / 'a.wav')
    expected = {'a.wav': 3, 'linked.wav': 3, 'lost.wav': 0}
    for inputs in (library, library / '*.wav'):
        items = find_audio(str(inputs), '/nowhere')[0]
        found = {item.source: item.bytes for item in items if item.source.endswith('.wav')}
        assert found == expected  # what is lost becomes a failure, and is not passed over


def test_links_to_folders_are_named(tmp_path, caplog):
    for name in ('in/a.wav', 'elsewhere/b.wav'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    link = tmp_path / 'in/link'
    link.symlink_to(tmp_path / 'elsewhere')
    items, _ = find_audio(str(tmp_path / 'in'), tmp_path / 'out')
    assert [item.source for item in items] == ['a.wav']
    assert caplog.messages == [
        f'not followed: 1 links to folders ({link} first); pass what they link to as inputs too'
    ]


def test_tensors_beside_latents_are_named(tmp_path, caplog):
    for name in ('a.npy', 'b.pt', 'c.wav'):
        (tmp_path / name).touch()
    assert [item.source for item in latent_items(str(tmp_path), '/nowhere')] == ['a.npy']
    assert caplog.messages == [
        'files left out, whose formats are not read: 1 .pt (b.pt first); '
        'convert each, with np.save(X, tensor.numpy())'
    ]


def test_a_link_in_a_circle_is_as_one_that_leads_nowhere(library):
    (library / 'self.wav').symlink_to('self.wav')
    (library / 'there.wav').symlink_to('back.wav')
    (library / 'back.wav').symlink_to('there.wav')
    (library / 'no audio').symlink_to('no audio')
    for inputs in (library, library / '**/*.wav'):
        assert {'back.wav', 'self.wav', 'there.wav'} < set(names(inputs))
    assert {item.bytes for item in find_audio(f'{library}', '/nowhere')[0][-2:]} == {0}
    with pytest.raises(InputError, match=r'self\.wav does not exist'):
        files.read_info(library / 'self.wav')
    with pytest.raises(InputError, match=r'self\.wav does not exist: check the path'):
        names(library / 'self.wav')


def test_audio_that_is_left_out_for_its_suffix_is_counted_and_named(library):
    for name in ('b.m4a', 'one two/c.WMA', 'one two/d.wma', '.junk/e.aac', 'cover.jpg', 'a.cue'):
        (library / name).touch()
    (library / 'album.aac').mkdir()
    left_out = LeftOut(3, {'.m4a': 1, '.wma': 2}, ['b.m4a', 'one two/c.WMA', 'one two/d.wma'])
    for inputs in (library, library / '**', f'{library},{library}/a.wav'):
        items, found = find_audio(str(inputs), '/nowhere')
        assert [item.source for item in items] == ['a.wav', 'one two/Bär 你好.FLAC']
        assert found == left_out
    assert left_out.describe() == (
        'files left out, whose formats are not read: 1 .m4a, 2 .wma (b.m4a first); '
        'convert each, as by `ffmpeg -i X X.flac`'
    )
    assert find_audio(str(library / '**/*.wav'), '/nowhere')[1] == LeftOut()
    assert find_audio(str(library), library / 'one two')[1].names == ['b.m4a']
    assert files.search(f'{library}, {library}/a.wav')[1].suffixes == {'.m4a': 1, '.wma': 2}
    # Who names such a file gets its failure.
    (library / 'list.txt').write_text('b.m4a\na.wav\n')
    for inputs in (library / 'b.m4a', library / 'list.txt'):
        items, found = find_audio(str(inputs), '/nowhere')
        assert 'b.m4a' in [item.source for item in items]
        assert found == LeftOut()


def test_a_folder_of_audio_that_is_not_read_says_so(tmp_path):
    (tmp_path / 'a.m4a').touch()
    for inputs in (tmp_path, tmp_path / '*', tmp_path / '*.m4a'):
        with pytest.raises(InputError, match=r'files left out, .*: 1 \.m4a .*ffmpeg -i X'):
            find_audio(str(inputs), '/nowhere')


def test_a_list_may_name_what_is_not_there(library, tmp_path):
    path = library / 'list.txt'
    path.write_bytes(
        b'\xef\xbb\xbf# a comment\r\n\r\na.wav\r\none two/gone.wav\r\na.wav\r\nno suffix'
    )
    assert [(item.source, item.bytes) for item in find_audio(str(path), '/nowhere')[0]] == [
        ('a.wav', 3),
        ('no suffix', 0),
        ('one two/gone.wav', 0),
    ]
    path.write_text(f'{library}/one two/b.wav\n{library}/one two/c/d.wav\n')
    assert names(path) == ['b.wav', 'c/d.wav']
    path.write_text('../elsewhere/b.wav\na.wav\n')
    assert names(path) == ['elsewhere/b.wav', 'library/a.wav']
    path.write_text('# nothing\n\n')
    with pytest.raises(InputError, match=r'list\.txt names no files: put a path on each line'):
        names(path)
    path.write_bytes(b'RIFF\0\0')
    with pytest.raises(InputError, match=r'list\.txt is no list of files'):
        names(path)


def test_undecodable_names_stay_apart_and_can_be_stored(tmp_path):
    for name in (b'\xff.wav', b'\xfe.wav'):
        (tmp_path / os.fsdecode(name)).touch()
    items = find_audio(str(tmp_path), '/nowhere')[0]
    assert [item.source for item in items] == ['\\xfe.wav', '\\xff.wav']
    assert [os.fsencode(item.path)[-5:] for item in items] == [b'\xfe.wav', b'\xff.wav']


def test_the_output_is_no_input(library):
    (library / 'out').mkdir()
    (library / 'out/decoded.wav').touch()
    assert names(library) == ['a.wav', 'one two/Bär 你好.FLAC', 'out/decoded.wav']
    assert names(library, library / 'out') == ['a.wav', 'one two/Bär 你好.FLAC']
    for inputs in (library, library / 'one two', library / 'one two/*.FLAC'):
        with pytest.raises(InputError, match=r'lies in the output folder .*: choose another'):
            names(inputs, library)


def test_what_is_missing_is_told(library, tmp_path):
    with pytest.raises(InputError, match='nowhere does not exist: check the path'):
        names(f'{library},{library}/nowhere')
    with pytest.raises(InputError, match=r'no file of latents matches .*: check the pattern'):
        latent_items(str(library / '*.npy'), '/nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
        InputError, match=r'no file of latents in .*empty: they end in \.npy, \.npz'
    ):
        latent_items(str(tmp_path / 'empty'), '/nowhere')


def test_a_folder_that_cannot_be_read_is_told(library, monkeypatch):
    scandir = os.scandir

    def refuse(folder):
        if os.path.basename(folder) in ('one two', 'lost+found'):
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(InputError, match='one two cannot be read: change its permissions'):
        names(library)
    (library / 'one two').rename(library / 'lost+found')  # which every disk has
    assert names(library) == ['a.wav']


def test_each_record_of_audio_is_an_input(tmp_path):
    folder = tmp_path / 'prepared'
    folder.mkdir()
    write_audio(folder, [2, 1])
    items = find_audio(str(folder), '/nowhere')[0]
    path = f'{folder}[train]'
    assert items == tuple(
        Item(f'train/{number:08d}', path, 1234 // 3, number) for number in range(3)
    )
    records = AudioRecords(items[1].path)
    expected = make_record(1)['audio'] / np.float32(32768)
    np.testing.assert_array_equal(records.read(items[1].record, 44_100), [expected])
    (tmp_path / 'a.wav').touch()
    assert names(f'{folder},{tmp_path}/a.wav')[:2] == ['a.wav', 'prepared/train/00000000']
    with pytest.raises(InputError, match="is a dataset 'm2l_audio', not of latents"):
        latent_items(str(folder), '/nowhere')
    with pytest.raises(InputError, match="has no split 'test'"):
        find_audio(f'{folder}[test]', '/nowhere')[0]


def test_each_shard_of_latents_is_an_input(tmp_path):
    record_format = write_latents(tmp_path, shards=((0, 1), (2,)))
    paths = [record_format.shard_path(tmp_path, number, 2) for number in range(2)]
    for inputs in (tmp_path, f'{tmp_path}[train]'):
        assert latent_items(str(inputs), '/nowhere') == tuple(
            Item(path.name, str(path), path.stat().st_size) for path in paths
        )
    with pytest.raises(InputError, match="has no feature 'audio'"):
        find_audio(str(tmp_path), '/nowhere')[0]
    with pytest.raises(InputError, match="has no split 'test', only 'train'"):
        latent_items(f'{tmp_path}[test]', '/nowhere')


def test_names_that_would_collide_are_told(library):
    assert mirrored_name('deep.er/a.b.flac', '.npz') == 'deep.er/a.b.npz'
    check_mirrored(find_audio(str(library), '/nowhere')[0], '.npz')
    (library / 'a.flac').touch()
    items = find_audio(str(library), '/nowhere')[0]
    with pytest.raises(InputError, match=r'a\.flac and .*a\.wav would both become a\.npz: rename'):
        check_mirrored(items, '.npz')
