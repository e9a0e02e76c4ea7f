import pytest
import soundfile

from m2l_jax.data.inputs import list_audio
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music


@pytest.fixture
def library(tmp_path):
    """Two albums, a text, a text named .wav, and a short file."""
    folder = tmp_path / 'library'
    for name in ('one/a.wav', 'one/deep/b.flac', 'two/a.wav'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, make_music(0.2).T, 44_100)
    soundfile.write(folder / 'two/brief.wav', make_music(0.05).T, 44_100)
    (folder / 'two/text.wav').write_text('not audio')
    (folder / 'two/text.txt').write_text('not audio')
    return folder


def sources(inputs):
    return [file.source for file in list_audio(str(inputs), 44_100, 4096)[0]]


def test_names_are_below_the_folder_that_the_inputs_share(library, monkeypatch):
    everything = ['one/a.wav', 'one/deep/b.flac', 'two/a.wav', 'two/brief.wav', 'two/text.wav']
    assert sources(library) == everything
    assert sources(library / 'one') == ['a.wav', 'deep/b.flac']
    assert sources(f'{library}/one, {library}/two/a.wav') == everything[:3]
    assert sources(library / 'one/a.wav') == ['a.wav']
    monkeypatch.chdir(library / 'one')
    assert sources('a.wav,.') == ['a.wav', 'deep/b.flac']


def test_patterns(library):
    assert sources(library / '**/*.wav') == [
        'one/a.wav',
        'two/a.wav',
        'two/brief.wav',
        'two/text.wav',
    ]
    assert sources(library / '*/a.*') == ['one/a.wav', 'two/a.wav']
    assert sources(library / 'one/**') == ['a.wav', 'deep/b.flac']
    (library / 'odd[1]').mkdir()
    (library / 'one/a.wav').rename(library / 'odd[1]/a.wav')
    assert sources(library / 'odd[1]') == ['a.wav']


def test_lists(library):
    (library / 'list.txt').write_text('one/a.wav\ntwo/gone.wav\n')
    assert sources(library / 'list.txt') == ['one/a.wav', 'two/gone.wav']
    gone = list_audio(str(library / 'list.txt'), 44_100, 4096)[0][1]
    assert (gone.bytes, gone.info) == (0, None)
    assert 'two/gone.wav cannot be read (No such file or directory)' in gone.problem


def test_what_cannot_be_used_says_why(library):
    files = {file.source: file for file in list_audio(str(library), 44_100, 4096)[0]}
    assert files['one/a.wav'].problem == ''
    assert files['one/a.wav'].info.samples == 8820
    assert files['one/a.wav'].bytes == (library / 'one/a.wav').stat().st_size
    assert 'two/brief.wav is shorter than a crop (4096 samples' in files['two/brief.wav'].problem
    assert 'two/text.wav cannot be read as audio' in files['two/text.wav'].problem
    assert files['two/text.wav'].info is None


def test_audio_that_is_not_read_is_left_out_and_named(library):
    (library / 'two/c.m4a').touch()
    files, left_out = list_audio(str(library), 44_100, 4096)
    assert len(files) == 5
    assert (left_out.files, left_out.names) == (1, ['two/c.m4a'])
    (library / 'others').mkdir()
    (library / 'others/d.wma').touch()
    with pytest.raises(InputError, match=r'no audio files in .* \(files left out, .*ffmpeg'):
        list_audio(str(library / 'others'), 44_100, 4096)


def test_a_link_in_a_circle_is_a_file_that_cannot_be_read(library):
    (library / 'two/self.wav').symlink_to('self.wav')
    (library / 'two/lost.wav').symlink_to('gone.wav')
    problems = {file.source: file.problem for file in list_audio(str(library), 44_100, 4096)[0]}
    assert 'self.wav cannot be read (Too many levels of symbolic links)' in problems['two/self.wav']
    assert 'lost.wav cannot be read (No such file or directory)' in problems['two/lost.wav']


def test_missing_input_is_told(library):
    with pytest.raises(InputError, match=r'nowhere does not exist: check the path'):
        list_audio(f'{library},{library}/nowhere', 44_100, 4096)
    with pytest.raises(InputError, match=r'no audio file matches .*\*\.mp3: check the pattern'):
        list_audio(str(library / '**/*.mp3'), 44_100, 4096)
    (library / 'empty').mkdir()
    with pytest.raises(InputError, match=r'no audio files in .*empty: put some there'):
        list_audio(str(library / 'empty'), 44_100, 4096)
