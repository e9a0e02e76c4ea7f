import dataclasses
import json
import logging
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from m2l_jax.audio import files
from m2l_jax.audio.pcm import FULL_SCALE
from m2l_jax.data import preparation, shards
from m2l_jax.data.preparation import prepare
from m2l_jax.data.segments import SegmentConfig
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file
from tests.conftest import make_music

CONFIG = SegmentConfig(
    sample_rate=44_100, segment_seconds=0.5, crop_frames=8, min_rms=0.001, shard_megabytes=0.2
)
HALF_STEP = 0.5 / FULL_SCALE


@pytest.fixture
def mixed_folder(music_folder):
    """Mono, stereo, eight channels, and a file at another rate."""
    (music_folder / 'deep').mkdir()
    soundfile.write(music_folder / 'deep/eight.wav', make_music(1, channels=8).T, 44_100)
    soundfile.write(music_folder / 'deep/other.flac', make_music(2, 48_000).T, 48_000)
    return music_folder


def read_all(folder):
    return list(tfds.builder_from_directory(folder).as_data_source('train'))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_what_is_left_out_and_what_is_odd_is_in_the_report(music_folder, tmp_path, caplog):
    caplog.set_level(logging.WARNING, 'm2l_jax')
    music = make_music(1, 48_000)
    soundfile.write(music_folder / 'loud.wav', music.T * 40_000, 48_000, subtype='FLOAT')
    soundfile.write(music_folder / 'one.wav', np.full(60_000, 0.25), 48_000)
    soundfile.write(music_folder / 'silent.wav', np.zeros(60_000), 48_000)
    (music_folder / 'other.m4a').touch()
    report = prepare(str(music_folder), tmp_path / 'set', CONFIG)
    assert report.warnings == {'one.wav': 'all samples are equal (0.25): no sound'}
    assert sorted(report.skipped) == ['loud.wav', 'silent.wav']
    assert 'loud.wav is too loud: peak ' in report.skipped['loud.wav']
    assert report.left_out.names == ['other.m4a']
    assert 'damaged, 1 with warnings (report.json)\nfiles left out' in report.describe()
    assert f'one.wav: {report.warnings["one.wav"]}' in caplog.messages
    written = json.loads((tmp_path / 'set/report.json').read_text())
    assert written == dataclasses.asdict(report)
    again = prepare(str(music_folder), tmp_path / 'set', CONFIG)  # from the summaries
    assert again == report


def test_the_dataset_holds_the_files(mixed_folder, tmp_path):
    report = prepare(str(mixed_folder), tmp_path / 'set', CONFIG)
    records = read_all(tmp_path / 'set')
    assert (report.files, report.segments, report.skipped, report.damaged) == (
        4,
        len(records),
        {},
        {},
    )
    assert report.hours_in == pytest.approx((3 + 3 + 1 + 2) / 3600)
    stored = sum(len(record['audio']) for record in records)
    assert report.hours_out == pytest.approx(stored / 44_100 / 3600)
    crops = {}
    for record in records:
        source = record['source'].decode()
        info = files.read_info(mixed_folder / source)
        whole = files.read(mixed_folder / source, 44_100)[record['channel']]
        expected = whole[record['offset'] :][: len(record['audio'])]
        audio = record['audio'] / np.float32(FULL_SCALE)
        np.testing.assert_allclose(audio, np.clip(expected, -1, 1), rtol=0, atol=HALF_STEP * 1.01)
        assert record['peak'] == pytest.approx(np.abs(expected).max(), rel=1e-4)
        assert record['rms'] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-4)
        assert record['sample_rate'] == 44_100
        assert record['channels'] == info.channels
        assert record['source_sample_rate'] == info.sample_rate
        starts = len(record['audio']) - CONFIG.crop_samples + 1
        places = crops.setdefault((source, record['channel']), [])
        places.extend(range(record['offset'], record['offset'] + starts))
    lengths = {'mono.wav': 132_300, 'stereo.flac': 132_300}
    lengths |= {'deep/eight.wav': 44_100, 'deep/other.flac': 88_200}
    channels = {'mono.wav': 1, 'stereo.flac': 2, 'deep/eight.wav': 8, 'deep/other.flac': 1}
    assert crops.keys() == {(name, c) for name, count in channels.items() for c in range(count)}
    for (source, _), places in crops.items():
        assert sorted(places) == list(range(lengths[source] - CONFIG.crop_samples + 1))


def test_blocks_do_not_show(mixed_folder, tmp_path, monkeypatch):
    """Read at once or a segment at a time: the same 16 bits, within one of them."""
    prepare(str(mixed_folder), tmp_path / 'large', CONFIG)
    monkeypatch.setattr(shards, '_BLOCK_VALUES', 1)
    prepare(str(mixed_folder), tmp_path / 'small', CONFIG)
    for large, small in zip(
        read_all(tmp_path / 'large'), read_all(tmp_path / 'small'), strict=True
    ):
        assert (large['source'], large['offset']) == (small['source'], small['offset'])
        np.testing.assert_allclose(large['audio'], small['audio'], rtol=0, atol=1)


def test_silence_is_left_out(tmp_path):
    folder = tmp_path / 'music'
    folder.mkdir()
    music = make_music(3, channels=2)
    music[1] = 0
    music[0, :60_000] = 0
    soundfile.write(folder / 'half.wav', music.T, 44_100)
    soundfile.write(folder / 'silent.wav', np.zeros(44_100), 44_100)
    report = prepare(str(folder), tmp_path / 'set', CONFIG)
    count = CONFIG.count(132_300)
    before = sum(CONFIG.bounds(number, 132_300)[1] <= 60_000 for number in range(count))
    assert before == 3
    assert report.segments == count - before
    assert report.silent_segments == count + before + CONFIG.count(44_100)
    assert report.skipped == {
        'silent.wav': f'{folder}/silent.wav is silent (RMS below 0.001)',
    }
    assert {record['channel'] for record in read_all(tmp_path / 'set')} == {0}


def test_broken_files_are_named_and_never_end_it(mixed_folder, tmp_path, caplog):
    (mixed_folder / 'text.wav').write_text('not audio')
    soundfile.write(mixed_folder / 'brief.wav', make_music(0.1).T, 44_100)
    broken = make_music(3, 22_050, channels=2)
    broken[1, 40_000] = np.nan
    soundfile.write(mixed_folder / 'nan.wav', broken.T, 22_050, subtype='FLOAT')
    cut = mixed_folder / 'cut.flac'
    soundfile.write(cut, make_music(6).T, 44_100)
    cut.write_bytes(cut.read_bytes()[:200_000])
    with caplog.at_level(logging.WARNING):
        report = prepare(str(mixed_folder), tmp_path / 'set', CONFIG)
    assert report.files == 8
    assert set(report.skipped) == {'text.wav', 'brief.wav'}
    assert 'cannot be read as audio' in report.skipped['text.wav']
    assert 'shorter than a crop (5632 samples' in report.skipped['brief.wav']
    assert set(report.damaged) == {'nan.wav', 'cut.flac'}
    assert 'nan.wav holds NaN or infinite samples' in report.damaged['nan.wav']
    assert 'cut.flac' in report.damaged['cut.flac']
    assert sorted(record.getMessage() for record in caplog.records) == sorted(
        f'skipping {reason}' for reason in (report.skipped | report.damaged).values()
    )
    assert '2 files skipped, 2 damaged' in report.describe()
    assert json.loads((tmp_path / 'set/report.json').read_text()) == dataclasses.asdict(report)

    records = read_all(tmp_path / 'set')
    whole = make_music(6)[0]
    kept = [record for record in records if record['source'] == b'cut.flac']
    assert 0 < len(kept) < CONFIG.count(6 * 44_100)
    for record in kept:
        expected = whole[record['offset'] :][: len(record['audio'])]
        np.testing.assert_allclose(record['audio'] / 32_768, expected, rtol=0, atol=4 * HALF_STEP)
    offsets = [
        {r['offset'] for r in records if r['source'] == b'nan.wav' and r['channel'] == channel}
        for channel in (0, 1)
    ]
    (lost,) = offsets[0] - offsets[1]  # the NaN is at 80,000 and reached by one segment only
    assert lost <= 80_000 < lost + CONFIG.segment_samples


# In the name of what a process writes: it is of none that lives.
DEAD = f'.{2**22 + 1}.'


class Killed(BaseException):
    """What nothing catches."""


def test_a_rerun_completes_what_was_killed(mixed_folder, tmp_path, monkeypatch):
    prepare(str(mixed_folder), tmp_path / 'whole', CONFIG)
    expected = contents(tmp_path / 'whole')
    numbers = sum('array_record' in name for name in expected)
    assert numbers > 3
    folder = tmp_path / 'killed'
    write_shard, written = shards.write_shard, []

    def write_two(job):
        if len(written) == 2:
            with replaced_file(job.path) as partial:
                partial.write_text('half')
                shutil.copyfile(partial, folder / partial.name.replace(f'.{os.getpid()}.', DEAD))
                raise Killed
        write_shard(job)
        written.append(job.path)

    with monkeypatch.context() as patch:
        patch.setattr(preparation.runners, 'write_shard', write_two)
        with pytest.raises(Killed):
            prepare(str(mixed_folder), folder, CONFIG)
    assert not (folder / 'dataset_info.json').exists()
    times = {path: (folder / path).stat().st_mtime_ns for path in written}
    assert len(times) == 2
    prepare(str(mixed_folder), folder, CONFIG)
    assert contents(folder) == expected
    assert times == {path: (folder / path).stat().st_mtime_ns for path in written}


def test_a_rerun_mends_what_was_lost(mixed_folder, tmp_path, caplog):
    folder = tmp_path / 'set'
    report = prepare(str(mixed_folder), folder, CONFIG)
    expected = contents(folder)
    with caplog.at_level(logging.INFO):
        assert prepare(str(mixed_folder), folder, CONFIG) == report
    assert caplog.messages == [f'{folder} is complete already: nothing to do']
    shard_files = sorted(folder.glob('*array_record*'))
    shard_files[0].unlink()
    shard_files[1].write_bytes(shard_files[1].read_bytes()[:-10])
    (folder / 'shards/00002.json').unlink()
    (folder / 'report.json').unlink()
    prepare(str(mixed_folder), folder, CONFIG)
    assert contents(folder) == expected


def test_a_second_run_leaves_a_live_one_alone(mixed_folder, tmp_path, monkeypatch):
    prepare(str(mixed_folder), tmp_path / 'whole', CONFIG)
    folder = tmp_path / 'set'
    write_shard, refusals = shards.write_shard, []

    def write_beside_another(job):
        with replaced_file(job.path) as partial:
            partial.write_text('half')
            with pytest.raises(InputError) as refusal:
                prepare(str(mixed_folder), folder, CONFIG)
            refusals.append(str(refusal.value))
            assert partial.read_text() == 'half'
            write_shard(job)
            partial.write_bytes(pathlib.Path(job.path).read_bytes())

    monkeypatch.setattr(preparation.runners, 'write_shard', write_beside_another)
    prepare(str(mixed_folder), folder, CONFIG)
    told = f'{folder} is being written by another process: wait for its end, or choose another'
    assert refusals
    assert all(refusal.startswith(told) for refusal in refusals)
    assert contents(folder) == contents(tmp_path / 'whole')


def test_what_a_live_process_writes_stays(music_folder, tmp_path):
    """Such as a worker on this machine of a pipeline whose runner is elsewhere."""
    folder = tmp_path / 'set'
    folder.mkdir()
    with pytest.raises(InputError), replaced_file(folder / 'x') as partial:
        pass
    live = folder / partial.name.replace(f'.{os.getpid()}.', f'.{os.getppid()}.')
    live.write_text('half')
    prepare(str(music_folder), folder, CONFIG)
    assert live.read_text() == 'half'


def test_nothing_tells_of_a_complete_dataset_while_it_is_mended(
    mixed_folder, tmp_path, monkeypatch
):
    folder = tmp_path / 'set'
    prepare(str(mixed_folder), folder, CONFIG)
    next(folder.glob('*array_record*')).unlink()
    write_shard, seen = shards.write_shard, []

    def look_and_write(job):
        seen.extend(folder.glob('*.json'))
        write_shard(job)

    monkeypatch.setattr(preparation.runners, 'write_shard', look_and_write)
    prepare(str(mixed_folder), folder, CONFIG)
    assert {path.name for path in seen} == {'features.json', 'preparation.json'}


def test_of_two_that_begin_at_once_with_other_settings_one_is_refused(
    mixed_folder, tmp_path, monkeypatch
):
    folder = tmp_path / 'set'
    create_file, other = preparation.create_file, dataclasses.replace(CONFIG, min_rms=0.01)

    def come_second(path, text):
        with monkeypatch.context() as patch:
            patch.setattr(preparation, 'create_file', create_file)
            prepare(str(mixed_folder), folder, other)
        return create_file(path, text)

    monkeypatch.setattr(preparation, 'create_file', come_second)
    with pytest.raises(InputError, match=r'otherwise \(settings\.min_rms: 0\.01 -> 0\.001\)'):
        prepare(str(mixed_folder), folder, CONFIG)


def test_a_shard_is_on_the_disk_before_it_counts_as_done(mixed_folder, tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def note(descriptor):
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, 'fsync', note)
    prepare(str(mixed_folder), tmp_path / 'set', CONFIG)
    numbers = {path.stat().st_ino for path in (tmp_path / 'set').glob('*array_record*')}
    assert len(numbers) > 3
    assert numbers <= flushed


def test_several_processes_write_the_same(mixed_folder, tmp_path):
    prepare(str(mixed_folder), tmp_path / 'one', CONFIG)
    prepare(str(mixed_folder), tmp_path / 'two', CONFIG, workers=2)
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')


def test_other_settings_or_input_are_refused(mixed_folder, tmp_path):
    folder = tmp_path / 'set'
    prepare(str(mixed_folder), folder, CONFIG)
    expected = contents(folder)
    other = dataclasses.replace(CONFIG, min_rms=0.01)
    with pytest.raises(InputError, match=r'otherwise \(settings\.min_rms: 0\.001 -> 0\.01\)'):
        prepare(str(mixed_folder), folder, other)
    soundfile.write(mixed_folder / 'mono.wav', make_music(2).T, 44_100)
    with pytest.raises(InputError, match=r'1 files added, removed or changed, mono\.wav first'):
        prepare(str(mixed_folder), folder, CONFIG)
    (folder / 'preparation.json').write_text('{')
    with pytest.raises(InputError, match=r'preparation\.json is damaged: remove'):
        prepare(str(mixed_folder), folder, CONFIG)
    del expected['preparation.json']
    (folder / 'preparation.json').unlink()
    assert contents(folder) == expected


def test_a_useless_output_is_told(music_folder, tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(InputError, match='file cannot be made a folder'):
        prepare(str(music_folder), tmp_path / 'file', CONFIG)
    with pytest.raises(InputError, match='music contains other files: choose a new or empty'):
        prepare(str(music_folder), music_folder, CONFIG)
    with pytest.raises(InputError, match='--workers=0 must be at least 1'):
        prepare(str(music_folder), tmp_path / 'set', CONFIG, workers=0)


def test_nothing_usable_leaves_nothing(tmp_path):
    folder = tmp_path / 'music'
    folder.mkdir()
    (folder / 'text.wav').write_text('not audio')
    with pytest.raises(InputError, match=r'none of the 1 audio files .*text\.wav cannot be read'):
        prepare(str(folder), tmp_path / 'set', CONFIG)
    assert not (tmp_path / 'set').exists()
    soundfile.write(folder / 'silent.wav', np.zeros(44_100), 44_100)
    with pytest.raises(InputError, match=r'none of the 2 audio files in .* can be used'):
        prepare(str(folder), tmp_path / 'set', CONFIG)
    assert not (tmp_path / 'set').exists()


def test_beam_is_told_to_be_missing(music_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'apache_beam', None)
    with pytest.raises(InputError, match='--runner=beam needs apache-beam'):
        prepare(str(music_folder), tmp_path / 'set', CONFIG, beam_options='--runner=DirectRunner')
