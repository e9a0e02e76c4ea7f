import io
import wave

import numpy as np
import pytest
import soundfile

from m2l_jax.audio.pipes import write_wav


class _Pipe(io.RawIOBase):
    """A file that cannot seek, and keeps what was written between flushes."""

    def __init__(self):
        self.parts = [b'']

    def writable(self):
        return True

    def write(self, content):
        self.parts[-1] += bytes(content)
        return len(content)

    def flush(self):
        self.parts.append(b'')


def test_integers_are_read_back_to_half_a_step():
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 1000)).astype(np.float32)
    audio[0, :2] = 1, -1
    pipe = _Pipe()
    write_wav(pipe, iter(np.split(audio, [300, 300], axis=1)), 8000, 1000)
    with wave.open(io.BytesIO(b''.join(pipe.parts))) as read:
        assert read.getparams()[:4] == (2, 2, 8000, 1000)
        stored = np.frombuffer(read.readframes(1000), '<i2').reshape(-1, 2).T
    expected = np.clip(np.rint(audio * np.float32(32768)), -32768, 32767)
    np.testing.assert_array_equal(stored, expected)


def test_each_block_is_sent_at_once():
    pipe, sent = _Pipe(), []

    def blocks():
        for samples in (3, 5):
            sent.append(sum(map(len, pipe.parts)))
            yield np.zeros((1, samples), np.float32)
        sent.append(sum(map(len, pipe.parts)))

    write_wav(pipe, blocks(), 8000, 8)
    assert sent == [0, 44 + 6, 44 + 16]


def test_floats_are_read_back_as_they_were():
    audio = np.random.default_rng(0).uniform(-1, 1, (3, 70)).astype(np.float32)
    pipe = _Pipe()
    write_wav(pipe, iter([audio]), 44_100, 70, floating=True)
    stored, rate = soundfile.read(io.BytesIO(b''.join(pipe.parts)), dtype='float32')
    assert rate == 44_100
    np.testing.assert_array_equal(stored.T, audio)


@pytest.mark.parametrize('samples', [1 << 30, 1 << 40])
def test_a_length_beyond_4_gib_is_told_as_unknown(samples):
    pipe = _Pipe()
    write_wav(pipe, iter([np.zeros((2, 1), np.float32)]), 44_100, samples)
    header = b''.join(pipe.parts)[:44]
    assert header[4:8] == header[40:44] == b'\xff\xff\xff\xff'


def test_nothing_is_written_before_an_error_of_the_first_block():
    def blocks():
        raise ValueError('no audio')
        yield

    pipe = _Pipe()
    with pytest.raises(ValueError, match='no audio'):
        write_wav(pipe, blocks(), 44_100, 10)
    assert pipe.parts == [b'']
