"""Degradations of known severity, and the benchmark that measures metrics on them."""

import json
import types

import numpy as np
import pytest
import soundfile

from benchmarks import degradations, ruler
from benchmarks.degradations import DEGRADATIONS, Examined, align
from m2l_jax.evaluation.metrics import ALL_METRICS, log_spectral_distance, si_sdr, snr
from m2l_jax.evaluation.spectra import average_power_spectrum
from m2l_jax.interface.errors import InputError
from tests.benchmarks.running import run
from tests.conftest import make_music

RATE = 44_100


@pytest.fixture(scope='module')
def clip():
    return make_music(3, channels=2)


@pytest.mark.parametrize('delay', [0, 1, 1105, 4608, -2, -700])
def test_a_delay_is_found_and_removed(clip, delay):
    decoded = 0.5 * np.pad(clip, ((0, 0), (max(delay, 0), 900)))[:, max(-delay, 0) :]
    aligned, found = align(clip, decoded)
    assert found == delay
    kept = slice(max(-delay, 0), None)
    np.testing.assert_allclose(aligned[:, kept], 0.5 * clip[:, kept], atol=1e-6)
    assert aligned.shape == clip.shape


@pytest.mark.parametrize(
    ('name', 'kilobits', 'least'),
    [('MP3 128', 128, 20), ('MP3 32', 32, 8), ('Opus 24', 24, 3), ('Opus 12', 12, -1)],
)
def test_codecs_keep_their_bit_rate_and_add_no_delay(clip, name, kilobits, least):
    degraded = DEGRADATIONS[name](clip, RATE)
    assert degraded.kilobits == pytest.approx(kilobits, rel=0.3)  # headers count too
    assert degraded.waveform.shape == clip.shape
    assert degraded.waveform.dtype == np.float32
    assert align(clip, degraded.waveform)[1] == 0
    assert si_sdr(clip, degraded.waveform) > least
    # A delay left in would have cost more than coding does.
    late = np.pad(degraded.waveform, ((0, 0), (max(degraded.delay, 20), 0)))[:, : clip.shape[1]]
    assert si_sdr(clip, late) < si_sdr(clip, degraded.waveform) - 3


def test_eight_bits(clip):
    eight = DEGRADATIONS['8 bits'](clip, RATE).waveform
    assert np.max(np.abs(eight - clip)) <= 1 / 256 + 1e-6
    np.testing.assert_array_equal(eight * 128, np.round(eight * 128))
    assert len(np.unique(eight)) <= 256


def test_the_low_pass_removes_what_is_above_and_keeps_what_is_below(clip):
    low = DEGRADATIONS['below 4 kHz'](clip, RATE).waveform
    power, of_original = average_power_spectrum(low), average_power_spectrum(clip)
    hertz = np.fft.rfftfreq(2048, 1 / RATE)
    change = 10 * np.log10(power / of_original)
    assert np.max(np.abs(change[:, (hertz > 100) & (hertz < 3900)])) < 0.2
    assert np.max(change[:, (hertz > 4600) & (hertz < 20_000)]) < -30


def test_other_phases_keep_the_magnitudes_and_lose_the_waveform(clip):
    other = DEGRADATIONS['other phases'](clip, RATE).waveform
    noise = DEGRADATIONS['shaped noise'](clip, RATE).waveform
    assert si_sdr(clip, other) < 0
    assert snr(clip, other) < 0
    assert log_spectral_distance(clip, other) < log_spectral_distance(clip, noise) / 2
    np.testing.assert_array_equal(other, DEGRADATIONS['other phases'](clip, RATE).waveform)


def test_a_library_that_does_not_write_the_codec_is_told_in_a_line(clip, monkeypatch):
    def write(*_, **options):
        raise TypeError("unexpected keyword argument 'compression_level'")

    monkeypatch.setattr(degradations.soundfile, 'write', write)
    with pytest.raises(InputError, match=r"cannot write OPUS .*pip install 'soundfile>=0\.13'"):
        DEGRADATIONS['Opus 12'](clip, RATE)


def test_orders_are_by_the_metrics_directions():
    assert ruler.order('mel', {'a': 0.3, 'b': 0.1, 'c': 0.2}) == ['b', 'c', 'a']
    assert ruler.order('si_sdr', {'a': 3.0, 'b': float('inf'), 'c': -2.0}) == ['b', 'a', 'c']
    assert ruler.order('centroid', {'a': -30.0, 'b': 20.0}) == ['b', 'a']
    assert ruler.order('fad musicnn', {'a': 2.0, 'b': 1.0}) == ['b', 'a']


def test_distances_are_from_the_original():
    random = np.random.default_rng(0)
    sets = {'original': 0.0, 'shaped noise': 1.0}
    found = {
        name: [Examined({}, 0, 0, {'net': random.normal(shift, 1, (20, 3))}) for _ in range(10)]
        for name, shift in sets.items()
    }
    figures = ruler.distances(found)
    assert list(figures) == ['fad net', 'fad_inf net', 'kad net']
    assert figures['fad net']['original'] == pytest.approx(0, abs=1e-6)
    assert figures['fad net']['shaped noise'] == pytest.approx(3, rel=0.3)


def test_the_command_prints_and_writes_a_table(tmp_path):
    soundfile.write(tmp_path / 'a.wav', make_music(1.1).T, RATE)
    output = tmp_path / 'ruler.json'
    printed = run(
        'ruler',
        f'--input={tmp_path / "a.wav"}',
        '--seconds=1',
        '--processes=1',
        '--embeddings=',
        f'--output={output}',
    )
    written = json.loads(output.read_text())
    measured = ALL_METRICS.keys() - written['left_out'].keys()
    assert written['means'].keys() == written['orders'].keys() == measured
    for metric in measured:
        assert written['means'][metric].keys() == DEGRADATIONS.keys()
        assert f'{ALL_METRICS[metric].heading}: original > ' in printed
    assert written['orders']['si_sdr'][-1] == 'shaped noise'
    assert written['coded'].keys() == {'MP3 128', 'MP3 32', 'Opus 24', 'Opus 12'}


def test_a_models_own_embedding_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(ruler, '_EMBEDDINGS', types.SimpleNamespace(value=['musicnn', 'encoder']))
    with pytest.raises(InputError, match='--embeddings=encoder needs a model'):
        ruler.main()
