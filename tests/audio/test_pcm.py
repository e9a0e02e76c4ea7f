import numpy as np

from m2l_jax.audio import pcm


def test_quantisation():
    values = np.array([0, 0.5, -1, 1, 3, -3, 0.4 / 32768, 0.6 / 32768], np.float32)
    expected = [0, 16_384, -32_768, 32_767, 32_767, -32_768, 0, 1]
    np.testing.assert_array_equal(pcm.to_int16(values), expected)
    every = np.arange(-32_768, 32_768).astype(np.int16)
    stored = every.astype(np.float32) / pcm.FULL_SCALE
    np.testing.assert_array_equal(pcm.to_int16(stored), every)
