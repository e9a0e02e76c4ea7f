import numpy as np
import pytest
import soundfile

from m2l_jax.interface.errors import InputError
from m2l_jax.probing.data_sets import read_examples
from tests.conftest import make_music


def write(folder, text, encoding='utf-8'):
    path = folder / 'list.csv'
    path.write_text(text, encoding=encoding)
    return str(path)


def test_paths_are_relative_to_the_list(tmp_path):
    (tmp_path / 'music').mkdir()
    waveform = make_music(0.2)
    soundfile.write(tmp_path / 'music' / 'a.wav', waveform.T, 44_100, subtype='FLOAT')
    text = 'path,label,split,group\nmusic/a.wav,jazz,valid,one\n'
    (example,) = read_examples(write(tmp_path, text, 'utf-8-sig'), {'genre': ''})
    assert (example.name, example.split, example.group) == ('music/a.wav', 'validation', 'one')
    assert example.labels == {'genre': ('jazz',)}
    np.testing.assert_array_equal(example.read(44_100), waveform)


def test_columns_of_tasks_come_before_label(tmp_path):
    path = write(tmp_path, 'path,label,pitch,tags\na.wav,flute,60,loud|high\nb.wav,,61,\n')
    tasks = {'instrument': '', 'pitch': '', 'tagging': 'tags', 'pitch_class': 'pitch'}
    first, second = read_examples(path, tasks)
    assert first.labels == {
        'instrument': ('flute',),
        'pitch': ('60',),
        'tagging': ('high', 'loud'),
        'pitch_class': ('C',),
    }
    assert second.labels == {
        'instrument': (),
        'pitch': ('61',),
        'tagging': (),
        'pitch_class': ('C#',),
    }
    assert (first.split, first.group) == ('', '')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('file,label\na.wav,x\n', r"has no column 'path': its first line must name the columns"),
        ('', r"has no column 'path'"),
        ('path,kind\na.wav,x\n', r"has no column 'genre' or 'label', only path, kind"),
        ('path,label,genre, label\na.wav,x,y,z\n', r"has two columns 'label': rename or remove"),
        ('path,label\n', r'names no audio files'),
        ('path,label,split\na.wav,x,half\n', r"line 2 has the split 'half'"),
        ('path,label\n,x\n', r'line 2 has no path'),
        ('path,label\na.wav,x\nb.wav,x\na.wav,y\n', r'names a\.wav 2 times: give each clip one l'),
    ],
)
def test_lists_that_cannot_be_used_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_examples(write(tmp_path, text), {'genre': ''})


def test_a_field_that_is_asked_for_must_be_there(tmp_path):
    with pytest.raises(InputError, match="has no column 'style', only path, label"):
        read_examples(write(tmp_path, 'path,label\na.wav,x\n'), {'genre': 'style'})


def test_columns_without_a_name_are_ignored(tmp_path):
    (example,) = read_examples(write(tmp_path, 'path,label,,\na.wav,x,,\n'), {'genre': ''})
    assert example.labels == {'genre': ('x',)}


def test_a_line_without_all_columns_has_no_label(tmp_path):
    (example,) = read_examples(write(tmp_path, 'path,label\na.wav\n'), {'genre': ''})
    assert example.labels == {'genre': ()}


def test_other_inputs_are_refused(tmp_path):
    with pytest.raises(InputError, match=r'nowhere\.csv cannot be read \(No such file'):
        read_examples(str(tmp_path / 'nowhere.csv'), {'genre': ''})
    with pytest.raises(InputError, match='is a folder: pass a CSV file'):
        read_examples(str(tmp_path), {'genre': ''})
    (tmp_path / 'a.csv').write_bytes(b'path,label\n\xff\xfe,x\n')
    with pytest.raises(InputError, match=r'a\.csv is no CSV in UTF-8'):
        read_examples(str(tmp_path / 'a.csv'), {'genre': ''})
    with pytest.raises(InputError, match='--data_home is for --data=mirdata:NAME'):
        read_examples(str(tmp_path / 'a.csv'), {'genre': ''}, data_home=tmp_path)


def test_a_limit_draws_lines(tmp_path):
    rows = ''.join(f'{number}.wav,x\n' for number in range(50))
    examples = read_examples(write(tmp_path, 'path,label\n' + rows), {'genre': ''}, limit=7)
    assert len(examples) == 7
    numbers = [int(each.name.removesuffix('.wav')) for each in examples]
    assert numbers == sorted(numbers) != list(range(7))
