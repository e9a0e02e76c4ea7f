import dataclasses

import numpy as np
import pytest

from m2l_jax.audio.files import AudioInfo
from m2l_jax.data.inputs import AudioFile
from m2l_jax.data.segments import SegmentConfig, plan_shards
from m2l_jax.interface.errors import InputError

CONFIG = SegmentConfig(
    sample_rate=44_100, segment_seconds=0.1, crop_frames=4, min_rms=0.001, shard_megabytes=0.05
)


def make_file(source, samples, channels=1, sample_rate=44_100):
    return AudioFile(source, 1000, AudioInfo(f'/music/{source}', sample_rate, channels, samples))


def test_the_default_crop_and_overlap():
    config = SegmentConfig(44_100, 5.0, 64, 0.001, 128.0)
    assert config.crop_samples == 34_304
    assert config.segment_samples == 220_500
    assert config.hop == 220_500 - 34_303


@pytest.mark.parametrize('samples', [3584, 3585, 4410, 4411, 5236, 5237, 44_100, 50_001])
def test_every_crop_lies_in_exactly_one_segment(samples):
    crop = CONFIG.crop_samples
    assert crop == 3584
    bounds = [CONFIG.bounds(number, samples) for number in range(CONFIG.count(samples))]
    homes = np.zeros(samples - crop + 1, int)
    for start, stop in bounds:
        assert crop <= stop - start <= CONFIG.segment_samples
        homes[start : stop - crop + 1] += 1
    np.testing.assert_array_equal(homes, 1)
    assert bounds[-1][1] == samples


def test_every_segment_is_in_one_shard_of_about_the_size():
    files = [make_file(f'{number}.wav', 10_000 + 3000 * number) for number in range(20)]
    files.append(make_file('long.wav', 200_000, channels=2))
    shards = plan_shards(files, CONFIG)
    planned = sorted(
        (piece.source, number)
        for pieces in shards
        for piece in pieces
        for number in range(piece.first, piece.stop)
    )
    assert planned == sorted(
        (file.source, number) for file in files for number in range(CONFIG.count(file.info.samples))
    )
    sizes = [
        sum((piece.stop - piece.first) * piece.info.channels * 4410 * 2 for piece in pieces)
        for pieces in shards
    ]
    assert max(sizes) <= 50_000
    assert min(sizes[:-1]) > 50_000 - 2 * 4410 * 2


def test_the_plan_mixes_files_and_does_not_depend_on_their_order():
    files = [make_file(f'{album}/{track}.wav', 20_000) for album in 'ab' for track in range(20)]
    config = dataclasses.replace(CONFIG, shard_megabytes=1)
    shards = plan_shards(files, config)
    assert len(shards) == 8
    assert shards == plan_shards(files[::-1], config)
    mixed = [len({piece.source[0] for piece in pieces}) == 2 for pieces in shards]
    assert np.mean(mixed) > 0.5


def test_a_segment_larger_than_a_shard_is_a_shard():
    config = dataclasses.replace(CONFIG, shard_megabytes=0.001)
    shards = plan_shards([make_file('a.wav', 20_000)], config)
    assert [[(piece.first, piece.stop) for piece in pieces] for pieces in shards] == [
        [(number, number + 1)] for number in range(config.count(20_000))
    ]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'segment_seconds': 0.08}, r'--segment_seconds=0.08 is 3528 samples, no longer than a'),
        ({'segment_seconds': float('inf')}, '--segment_seconds=inf must be a number above 0'),
        ({'sample_rate': -1}, '--sample_rate=-1 must be a number above 0'),
        ({'crop_frames': 0}, '--crop_frames=0 must be a number above 0'),
        ({'min_rms': -0.1}, '--min_rms=-0.1 must be at least 0'),
        ({'min_rms': float('nan')}, '--min_rms=nan must be at least 0'),
        ({'shard_megabytes': 0.0}, '--shard_megabytes=0.0 must be a number above 0'),
    ],
)
def test_wrong_settings_are_told(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **change)
