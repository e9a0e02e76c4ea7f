import io

import numpy as np

from m2l_jax.audio.flac import Stream, _crc, _frame_end


def frame_whose_sum_ends_in_zero() -> bytes:
    """A frame that ends in data 0 and checksum c, 0; its first part ends in a checksum 0, c too.

    The checksum of some bytes and a zero is the checksum of the bytes, moved by eight bits.
    """
    random = np.random.default_rng(0)
    while (crc := _crc(body := random.bytes(20), 16, 0x8005)) >> 8 or not crc:
        pass
    assert _crc(body + b'\0', 16, 0x8005) == crc << 8
    return body + bytes([0, crc, 0])


def test_a_frame_ends_after_the_zeros_that_may_be_its_sum():
    frame = frame_whose_sum_ends_in_zero()
    stream = Stream(block=16, channels=1, bits=16, samples=16)
    for trailer in (b'', b'\0', b'\0' * 50, b'TAG'):
        content = frame + trailer
        end = _frame_end(io.BytesIO(content), 0, len(content), stream)
        assert len(frame) <= end <= len(frame) + 2
    content = frame[:-2] + b'TAG'
    assert _frame_end(io.BytesIO(content), 0, len(content), stream) is None
