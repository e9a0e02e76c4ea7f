import dataclasses

import numpy as np
import pytest

from m2l_jax.data.segments import SegmentConfig
from m2l_jax.interface.errors import InputError

CONFIG = SegmentConfig(
    sample_rate=44_100, segment_seconds=0.1, crop_frames=4, min_rms=0.001, shard_megabytes=0.05
)


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
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **change)
