import numpy as np
import pytest
import soundfile
import yaml

from m2l_jax.evaluation.listening.stimuli import Comparison
from m2l_jax.evaluation.listening.webmushra import write_webmushra
from m2l_jax.evaluation.loudness import integrated_loudness
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file, make_music

RATE = 44_100
TITLE = 'one: "two" #3'


@pytest.fixture
def clips():
    music = [0.3 * make_music(1, seed=seed, channels=2) for seed in range(2)]
    return [
        Comparison(name, RATE, sound, {'reference': 0.5 * sound, 'a/b': 0.9 * sound, 'a?b': sound})
        for name, sound in zip(('<b>&', "it's: -"), music, strict=True)
    ]


def test_configuration_names_every_sound(clips, tmp_path):
    path = write_webmushra(tmp_path, clips, TITLE)
    assert path == tmp_path / 'configs' / 'one_two_3.yaml'
    config = yaml.safe_load(path.read_text())
    assert config['testname'] == TITLE
    assert config['testId'] == 'one_two_3'
    assert config['remoteService'] == 'service/write.php'
    (order, *trials), finish = config['pages']
    assert order == 'random'
    assert [trial['name'] for trial in trials] == ['&lt;b&gt;&amp;', 'it&#x27;s: -']
    assert (finish['type'], finish['writeResults']) == ('finish', True)
    for trial in trials:
        assert trial['type'] == 'mushra'
        assert trial['strict'] is True
        assert trial['createAnchor35'] is trial['createAnchor70'] is False
        # A model must not take the reference's name in the results.
        assert list(trial['stimuli']) == ['reference_2', 'a_b', 'a_b_2', 'anchor35', 'anchor70']
        for sound in (trial['reference'], *trial['stimuli'].values()):
            assert soundfile.info(tmp_path / sound).frames == RATE
    written = [file for file in tmp_path.rglob('*') if file.is_file()]
    assert len(written) == 2 * 6 + 1


def test_sounds_are_equally_loud(clips, tmp_path):
    config = yaml.safe_load(write_webmushra(tmp_path, clips, TITLE).read_text())
    trial = config['pages'][0][1]
    expected = integrated_loudness(clips[0].original, RATE)
    for path in (trial['reference'], *trial['stimuli'].values()):
        sound, rate = soundfile.read(tmp_path / path)
        assert integrated_loudness(sound.T, rate) == pytest.approx(expected, abs=0.001)
    low, _ = soundfile.read(tmp_path / trial['stimuli']['anchor35'])
    power = np.abs(np.fft.rfft(low[:, 0])) ** 2  # a bin is 1 Hz
    assert np.sum(power[4000:]) < 1e-5 * np.sum(power)


def test_long_clips_are_not_checked_by_the_recommendation(tmp_path):
    sound = np.ones((1, 13 * 8000), np.float32)
    path = write_webmushra(tmp_path, [Comparison('a', 8000, sound, {'x': sound})], 'test')
    (_, trial), _ = yaml.safe_load(path.read_text())['pages']
    assert trial['strict'] is False


def test_a_test_that_does_not_fit_on_the_disk_leaves_nothing(clips, tmp_path):
    long = make_music(3)
    clips.append(Comparison('c', RATE, long, dict.fromkeys(clips[0].reconstructions, long)))
    with largest_file(350_000), pytest.raises(InputError, match=r'02_c.*wav cannot be written'):
        write_webmushra(tmp_path / 'new', clips, 'test')
    assert not list(tmp_path.iterdir())


def test_clips_must_fit_together(tmp_path):
    with pytest.raises(InputError, match='no clips'):
        write_webmushra(tmp_path, [], 'test')
