"""The command that decodes to standard output."""

import io
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.store import StoredLatents, write_latents
from tests.commands.test_commands import REPOSITORY
from tests.conftest import on_one_device

STEP, REACH = 1024, 1536
SECONDS = 16 * STEP / 44_100
OPTIONS = (f'--chunk_seconds={SECONDS}', f'--overlap={4 * STEP / 44_100}', '--seed=3')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('play')
    small_model.save(folder / 'model.safetensors')
    model = EncoderDecoder(folder / 'model.safetensors').model_id
    latents = np.random.default_rng(0).standard_normal((2, 8, 50)).astype(np.float32)
    stored = StoredLatents(latents, 44_100, 50 * STEP + 900, 0.06, model, 'mid_side')
    write_latents(folder / 'song.npz', stored)
    np.save(folder / 'batch.npy', latents[:, None])
    return folder


def command(folder, module, *arguments):
    checkpoint = f'--checkpoint={folder / "model.safetensors"}'
    return [sys.executable, '-m', f'm2l_jax.{module}', checkpoint, *OPTIONS, *arguments]


def run(*arguments, **options):
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | options
    return subprocess.run(*arguments, cwd=REPOSITORY, env=on_one_device(), **options)


def test_what_is_played_is_what_decode_writes(folder):
    source = f'--input={folder / "song.npz"}'
    played = run(command(folder, 'play', source, '--float'))
    assert (played.returncode, b'Traceback' in played.stderr) == (0, False)
    audio, rate = soundfile.read(io.BytesIO(played.stdout))
    decoded = run(command(folder, 'decode', source, f'--output={folder / "out"}'))
    assert decoded.returncode == 0
    written, _ = soundfile.read(folder / 'out' / 'song.wav')
    assert (rate, audio.shape) == (44_100, (50 * STEP + 900, 2))
    np.testing.assert_allclose(audio, written, rtol=0, atol=2**-23)  # of 24 bits
    assert np.abs(audio).max() > 1e-3


def test_a_reader_that_leaves_early_is_no_error(folder):
    """As `| head -c 1000` does."""
    with subprocess.Popen(
        command(folder, 'play', f'--input={folder / "song.npz"}'),
        cwd=REPOSITORY,
        env=on_one_device(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as playing:
        assert playing.stdout.read(4) == b'RIFF'
        playing.stdout.close()
        assert (playing.stderr.read(), playing.wait()) == (b'', 0)


def test_a_batch_is_not_played_in_part(folder):
    played = run(command(folder, 'play', f'--input={folder / "batch.npy"}'))
    assert (played.returncode, played.stdout) == (1, b'')
    assert b'is a batch of 2: m2l_jax.decode writes a file of each' in played.stderr


def test_a_folder_is_not_played(folder):
    played = run(command(folder, 'play', f'--input={folder}'))
    assert (played.returncode, played.stdout) == (1, b'')
    assert b'is a folder: pass one of its files; m2l_jax.decode takes folders' in played.stderr


def test_a_terminal_gets_no_bytes(folder):
    terminal, end = pty.openpty()
    played = run(command(folder, 'play', '--input=song.npz'), stdout=end)
    os.close(end)
    os.close(terminal)
    assert played.returncode == 1
    assert played.stderr == b'error: this writes a WAV: pipe it on, `| aplay`, or `> song.wav`\n'


def test_a_closed_output_is_told(folder):
    arguments = command(folder, 'play', f'--input={folder / "song.npz"}')
    result = run(['sh', '-c', '"$@" >&-', 'sh', *arguments])
    assert result.returncode == 1
    assert b'error: this writes a WAV: pipe it on' in result.stderr
    assert b'Traceback' not in result.stderr


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='a device of Linux')
def test_a_full_disk_is_told(folder):
    with open('/dev/full', 'wb') as full:
        played = run(command(folder, 'play', f'--input={folder / "song.npz"}'), stdout=full)
    assert played.returncode == 1
    assert b'error: standard output cannot be written (No space left on device)' in played.stderr
    assert b'Traceback' not in played.stderr
