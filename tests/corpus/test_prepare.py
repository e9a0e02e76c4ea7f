import csv
import dataclasses
import json
import logging
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from m2l_jax.audio import files
from m2l_jax.audio.levels import FULL_SCALE
from m2l_jax.corpus import prepare as prepare_module
from m2l_jax.corpus.plan import Piece
from m2l_jax.corpus.prepare import plan_segments, prepare
from m2l_jax.corpus.run import RunOptions
from m2l_jax.corpus.verify import verify_job
from m2l_jax.data.segments import SegmentConfig
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music
from tests.corpus.fake_job import results
from tests.corpus.killing import killed_at
from tests.waiting import HANG_SECONDS

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = SegmentConfig(
    sample_rate=44_100, segment_seconds=0.5, crop_frames=8, min_rms=0.001, shard_megabytes=0.2
)
ALONE = RunOptions(share='0/1', threads=1)
HALF_STEP = 0.5 / FULL_SCALE


def make_set(folder, output, config=CONFIG, options=ALONE):
    return prepare(str(folder), output, config, options)


def table(path):
    """Rows of failures.csv or warnings.csv, by file; none if it is missing."""
    if not path.exists():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        return dict(list(csv.reader(file))[1:])


def contents(folder):
    """All that a run has left, but for its report."""
    return {name: text for name, text in results(folder).items() if not name.startswith('report')}


@pytest.fixture
def mixed_folder(music_folder):
    """Mono, stereo, eight channels, and a file at another rate."""
    (music_folder / 'deep').mkdir()
    soundfile.write(music_folder / 'deep/eight.wav', make_music(1, channels=8).T, 44_100)
    soundfile.write(music_folder / 'deep/other.flac', make_music(2, 48_000).T, 48_000)
    return music_folder


def read_all(folder):
    return list(tfds.builder_from_directory(folder).as_data_source('train'))


def test_what_is_left_out_and_what_is_odd_is_noted(music_folder, tmp_path, caplog):
    caplog.set_level(logging.WARNING, 'm2l_jax')
    music = make_music(1, 48_000)
    soundfile.write(music_folder / 'loud.wav', music.T * 40_000, 48_000, subtype='FLOAT')
    soundfile.write(music_folder / 'one.wav', np.full(60_000, 0.25), 48_000)
    soundfile.write(music_folder / 'silent.wav', np.zeros(60_000), 48_000)
    (music_folder / 'other.m4a').touch()
    report = make_set(music_folder, tmp_path / 'set')
    odd = {'one.wav': 'all samples are equal (0.25): no sound'}
    assert table(tmp_path / 'set/warnings.csv') == odd
    skipped = table(tmp_path / 'set/failures.csv')
    assert sorted(skipped) == ['loud.wav', 'silent.wav']
    assert 'loud.wav is too loud: peak ' in skipped['loud.wav']
    assert (report.files, report.failures, report.warnings) == (3, 2, 1)
    assert report.left_out.names == ['other.m4a']
    assert report.describe().splitlines()[1].startswith('files left out')
    assert f'one.wav: {odd["one.wav"]}' in caplog.messages
    written = json.loads((tmp_path / 'set/report.json').read_text())
    assert written == dataclasses.asdict(report)


def test_the_dataset_holds_the_files(mixed_folder, tmp_path):
    report = make_set(mixed_folder, tmp_path / 'set')
    records = read_all(tmp_path / 'set')
    assert (report.files, report.failures, report.warnings) == (4, 0, 0)
    manifest = json.loads((tmp_path / 'set/manifest.json').read_text())
    assert len(manifest['shards']) > 4
    outputs = [output for shard in manifest['shards'] for output in shard['outputs']]
    assert sum(output['records'] for output in outputs) == len(records)
    assert report.hours == pytest.approx((3 + 3 + 1 + 2) / 3600, rel=0.05)
    told = f'{len(outputs)} files with the latents or the audio of 4 inputs are as they were'
    assert verify_job(tmp_path / 'set').startswith(told)
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


def test_stereo_keeps_the_channels_together(mixed_folder, tmp_path):
    config, folder = dataclasses.replace(CONFIG, stereo=True), tmp_path / 'set'
    report = make_set(mixed_folder, folder, config)
    assert (report.files, report.failures, report.warnings) == (3, 1, 0)
    told = 'has 8 channels, and a stereo model takes one or two: mix it down first'
    assert told in table(folder / 'failures.csv')['deep/eight.wav']
    found = {}
    for record in read_all(folder):
        source = record['source'].decode()
        whole = files.read(mixed_folder / source, 44_100)
        expected = whole[:, record['offset'] :][:, : len(record['audio'])]
        audio = record['audio'].T / np.float32(FULL_SCALE)
        np.testing.assert_allclose(audio, np.clip(expected, -1, 1), rtol=0, atol=HALF_STEP * 1.01)
        assert record['channels'] == len(audio)
        assert record['peak'] == pytest.approx(np.abs(expected).max(), rel=1e-4)
        assert record['rms'] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-4)
        found[source] = found.get(source, 0) + 1
    lengths = {'mono.wav': 132_300, 'stereo.flac': 132_300, 'deep/other.flac': 88_200}
    assert found == {source: CONFIG.count(length) for source, length in lengths.items()}
    assert verify_job(folder).endswith('inputs are as they were written; 1 inputs failed')
    made = contents(folder)
    make_set(mixed_folder, folder, config)
    assert contents(folder) == made
    with pytest.raises(InputError, match=r'settings\.stereo: True -> None'):
        make_set(mixed_folder, folder)


def test_blocks_do_not_show(mixed_folder, tmp_path, monkeypatch):
    """Read at once or a segment at a time: the same 16 bits, within one of them."""
    make_set(mixed_folder, tmp_path / 'large')
    monkeypatch.setattr(prepare_module, '_BLOCK_VALUES', 1)
    make_set(mixed_folder, tmp_path / 'small')
    for large, small in zip(
        read_all(tmp_path / 'large'), read_all(tmp_path / 'small'), strict=True
    ):
        assert (large['source'], large['offset']) == (small['source'], small['offset'])
        np.testing.assert_allclose(large['audio'], small['audio'], rtol=0, atol=1)


def test_silence_is_left_out(tmp_path, caplog):
    folder = tmp_path / 'music'
    folder.mkdir()
    music = make_music(3, channels=2)
    music[1] = 0
    music[0, :60_000] = 0
    soundfile.write(folder / 'half.wav', music.T, 44_100)
    soundfile.write(folder / 'silent.wav', np.zeros(44_100), 44_100)
    with caplog.at_level(logging.INFO):
        make_set(folder, tmp_path / 'set', dataclasses.replace(CONFIG, shard_megabytes=1))
    count = CONFIG.count(132_300)
    before = sum(CONFIG.bounds(number, 132_300)[1] <= 60_000 for number in range(count))
    assert before == 3
    records = read_all(tmp_path / 'set')
    assert len(records) == count - before
    assert {record['channel'] for record in records} == {0}
    told = f'{count - before} of {2 * count + CONFIG.count(44_100)} segments are in 1 shards, '
    assert caplog.messages[-1].startswith(told)
    assert table(tmp_path / 'set/failures.csv') == {
        'silent.wav': f'{folder}/silent.wav is silent (RMS below 0.001)',
    }


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
        report = make_set(mixed_folder, tmp_path / 'set')
    assert (report.files, report.failures) == (6, 2)
    skipped = table(tmp_path / 'set/failures.csv')
    assert set(skipped) == {'text.wav', 'brief.wav'}
    assert 'cannot be read as audio' in skipped['text.wav']
    assert 'shorter than a crop (5632 samples' in skipped['brief.wav']
    damaged = table(tmp_path / 'set/warnings.csv')
    assert set(damaged) == {'nan.wav', 'cut.flac'}
    assert 'nan.wav holds NaN or infinite samples' in damaged['nan.wav']
    assert 'cut.flac' in damaged['cut.flac']
    told = {message.partition(': ')[0] for message in caplog.messages}  # of each part, once
    assert told == {'skipped text.wav', 'skipped brief.wav', 'nan.wav', 'cut.flac'}

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


def start(folder, output, *flags, before=''):
    """The command in a process of its own, after lines of Python."""
    run = 'runpy.run_module("m2l_jax.prepare", run_name="__main__", alter_sys=True)'
    config = dataclasses.asdict(CONFIG)
    settings = [f'--{name}={value}' for name, value in config.items()]
    return subprocess.Popen(
        [
            *(sys.executable, '-c', f'{before}\nimport runpy\n{run}'),
            *(f'--input={folder}', f'--output={output}', '--workers=1', *settings, *flags),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_was_killed_goes_on(mixed_folder, tmp_path):
    make_set(mixed_folder, tmp_path / 'whole')
    folder = tmp_path / 'killed'
    at_the_third = killed_at(3, folder / 'shards', ('os.rename',))
    with start(mixed_folder, folder, before=at_the_third) as process:
        process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / 'dataset_info.json').exists()
    assert len(list(folder.glob('shards/*/*.json'))) == 2
    times = {path: path.stat().st_mtime_ns for path in folder.glob('*array_record*')}
    report = make_set(mixed_folder, folder)
    assert report.shards_before == 2
    assert contents(folder) == contents(tmp_path / 'whole')
    assert sum(times[path] == path.stat().st_mtime_ns for path in times) >= 2


def test_a_rerun_has_nothing_to_do_and_completes_what_tells_of_the_whole(mixed_folder, tmp_path):
    folder = tmp_path / 'set'
    make_set(mixed_folder, folder)
    expected = contents(folder)
    (folder / 'dataset_info.json').unlink()
    (folder / 'manifest.json').unlink()
    report = make_set(mixed_folder, folder)
    assert report.describe().startswith('nothing to do: all')
    assert contents(folder) == expected


def test_damaged_shards_are_found_and_done_again_as_is_advised(mixed_folder, tmp_path):
    folder = tmp_path / 'set'
    make_set(mixed_folder, folder)
    expected = contents(folder)
    first, second, *_ = sorted(folder.glob('*array_record*'))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-10])
    with pytest.raises(InputError, match=r'2 of \d+ files in .*/set are not as they') as caught:
        verify_job(folder)
    subprocess.run(str(caught.value).split('`')[1], shell=True, check=True)
    make_set(mixed_folder, folder)
    assert contents(folder) == expected


def _prepare_at_once(barrier, folder, output):
    barrier.wait()
    make_set(folder, output)


def test_two_at_once_give_the_same(mixed_folder, tmp_path):
    make_set(mixed_folder, tmp_path / 'whole')
    context = multiprocessing.get_context('spawn')
    barrier, arguments = context.Barrier(2), (mixed_folder, tmp_path / 'set')
    processes = [
        context.Process(target=_prepare_at_once, args=(barrier, *arguments)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(tmp_path / 'set') == contents(tmp_path / 'whole')


def test_shares_and_threads_write_the_same(mixed_folder, tmp_path):
    make_set(mixed_folder, tmp_path / 'one')
    make_set(mixed_folder, tmp_path / 'two', options=RunOptions(share='0/1', threads=3))
    for index in range(2):
        assert not (tmp_path / 'three/dataset_info.json').exists()
        make_set(mixed_folder, tmp_path / 'three', options=RunOptions(share=f'{index}/2'))
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two') == contents(tmp_path / 'three')


def test_a_ray_cluster_writes_the_same(mixed_folder, tmp_path):
    """As the command starts it, on nodes whose accelerators are left alone."""
    cluster_utils = pytest.importorskip('ray.cluster_utils')
    make_set(mixed_folder, tmp_path / 'one')
    head = {'num_cpus': 1, 'num_gpus': 1, 'include_dashboard': False}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**head, 'object_store_memory': 80_000_000}
    )
    try:
        flags = ('--runner=ray', f'--ray_address={cluster.address}', '--ray_cpus=1')
        with start(mixed_folder, tmp_path / 'ray', *flags) as process:
            told = process.communicate(timeout=HANG_SECONDS)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, told
    assert contents(tmp_path / 'ray') == contents(tmp_path / 'one')


def test_a_shard_is_on_the_disk_before_it_counts_as_done(mixed_folder, tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def note(descriptor):
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, 'fsync', note)
    make_set(mixed_folder, tmp_path / 'set')
    numbers = {path.stat().st_ino for path in (tmp_path / 'set').glob('*array_record*')}
    assert len(numbers) > 3
    assert numbers <= flushed


def test_other_settings_or_input_are_refused(mixed_folder, tmp_path):
    folder = tmp_path / 'set'
    make_set(mixed_folder, folder)
    expected = contents(folder)
    other = dataclasses.replace(CONFIG, min_rms=0.01)
    with pytest.raises(InputError, match=r'otherwise \(settings\.min_rms: 0\.001 -> 0\.01\)'):
        make_set(mixed_folder, folder, other)
    path = mixed_folder / 'mono.wav'
    content = path.read_bytes()
    path.write_bytes(content[:24] + (48_000).to_bytes(4, 'little') + content[28:])
    assert files.read_info(path).sample_rate == 48_000  # of the same size
    with pytest.raises(InputError, match=r"\(input: 1 changed, 'mono\.wav' first\)"):
        make_set(mixed_folder, folder)
    assert contents(folder) == expected


def test_a_useless_output_is_told(music_folder, tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(InputError, match='file cannot be made a folder'):
        make_set(music_folder, tmp_path / 'file')
    with pytest.raises(InputError, match='music lies in the output folder'):
        make_set(music_folder, music_folder)
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/mine').touch()
    with pytest.raises(InputError, match=r"contains other files \('mine'\): choose a new or empty"):
        make_set(music_folder, tmp_path / 'other')
    with pytest.raises(InputError, match='--workers=0 must be at least 1'):
        RunOptions(threads=0)


def test_nothing_usable_leaves_nothing(tmp_path):
    folder = tmp_path / 'music'
    folder.mkdir()
    (folder / 'text.wav').write_text('not audio')
    with pytest.raises(InputError, match=r'none of the 1 audio files .*text\.wav cannot be read'):
        make_set(folder, tmp_path / 'set')
    assert not (tmp_path / 'set').exists()
    soundfile.write(folder / 'silent.wav', np.zeros(44_100), 44_100)
    with pytest.raises(InputError, match=r'none of the 2 audio files in .* can be used'):
        make_set(folder, tmp_path / 'set')
    assert not (tmp_path / 'set').exists()


def test_lists_may_name_what_is_not_there(music_folder, tmp_path):
    (music_folder / 'list.txt').write_text('mono.wav\ngone.wav\n')
    report = make_set(music_folder / 'list.txt', tmp_path / 'set')
    assert (report.files, report.failures) == (1, 1)
    assert 'gone.wav does not exist' in table(tmp_path / 'set/failures.csv')['gone.wav']


BRIEF = SegmentConfig(
    sample_rate=44_100, segment_seconds=0.1, crop_frames=4, min_rms=0.001, shard_megabytes=0.05
)


def make_file(source, samples, channels=1, sample_rate=44_100):
    info = files.AudioInfo(f'/music/{source}', sample_rate, channels, samples)
    return Piece(source, info.path, 1000, info=info)


def test_every_segment_is_in_one_shard_of_about_the_size():
    listed = [make_file(f'{number}.wav', 10_000 + 3000 * number) for number in range(20)]
    listed.append(make_file('long.wav', 200_000, channels=2))
    shards = plan_segments(listed, BRIEF)
    planned = sorted(
        (piece.source, number)
        for shard in shards
        for piece in shard.items
        for number in range(piece.first, piece.stop)
    )
    assert planned == sorted(
        (file.source, number) for file in listed for number in range(BRIEF.count(file.info.samples))
    )
    sizes = [
        sum((piece.stop - piece.first) * piece.info.channels * 4410 * 2 for piece in shard.items)
        for shard in shards
    ]
    assert max(sizes) <= 50_000
    assert min(sizes[:-1]) > 50_000 - 2 * 4410 * 2


def test_the_plan_mixes_files_and_does_not_depend_on_their_order():
    listed = [make_file(f'{album}/{track}.wav', 20_000) for album in 'ab' for track in range(20)]
    config = dataclasses.replace(BRIEF, shard_megabytes=1)
    shards = plan_segments(listed, config)
    assert len(shards) == 8
    assert shards == plan_segments(listed[::-1], config)
    mixed = [len({piece.source[0] for piece in shard.items}) == 2 for shard in shards]
    assert np.mean(mixed) > 0.5


def test_a_segment_larger_than_a_shard_is_a_shard():
    config = dataclasses.replace(BRIEF, shard_megabytes=0.001)
    shards = plan_segments([make_file('a.wav', 20_000)], config)
    assert [[(piece.first, piece.stop) for piece in shard.items] for shard in shards] == [
        [(number, number + 1)] for number in range(config.count(20_000))
    ]


def test_what_cannot_be_used_is_planned_and_changes_no_shard():
    listed = [make_file(f'{number}.wav', 10_000 + 3000 * number) for number in range(20)]
    bad = [Piece(f'bad {number}.wav', '', 0, problem='no audio') for number in range(20)]
    with_bad = plan_segments([*listed, *bad], BRIEF)
    left = [[piece for piece in shard.items if not piece.problem] for shard in with_bad]
    assert left == [list(shard.items) for shard in plan_segments(listed, BRIEF)]
    assert sum(shard.files for shard in with_bad) == 40
    assert sum(shard.bytes for shard in with_bad) == 20_000
