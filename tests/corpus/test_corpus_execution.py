"""A job from its beginning to its end, in this process and in processes that are killed."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from benchmarks import small_model
from benchmarks.small_corpus import write_audio
from m2l_jax.corpus.execution import RunOptions, run_job, verify_job
from m2l_jax.interface.errors import InputError
from tests.conftest import on_one_device
from tests.corpus.fake_job import SETTINGS, FakeJob, plan, results
from tests.corpus.killing import killed_at
from tests.waiting import HANG_SECONDS

ROOT = pathlib.Path(__file__).parents[2]


def test_a_report_that_cannot_be_written_hides_no_error(tmp_path):
    """Where a disk is full, nothing can be."""
    folder = tmp_path / 'out'
    items, _ = plan(30, ['full'])

    def open_worker(job):
        (folder / 'report.json').mkdir()
        return job.open()

    with pytest.raises(InputError, match=r'full\.txt cannot be written \(No space left'):
        run_job(
            lambda shards: FakeJob(str(folder)),
            open_worker,
            items,
            SETTINGS,
            folder,
            RunOptions(1.0, 3),
        )


def start(module, *flags, before=''):
    """A command in a process of its own, after lines of Python."""
    run = f'runpy.run_module("m2l_jax.{module}", run_name="__main__", alter_sys=True)'
    program = f'{before}\nimport runpy\n{run}'
    return subprocess.Popen(
        [sys.executable, '-c', program, *flags, '--shard_files=2', '--dtype=float32'],
        cwd=ROOT,
        env=on_one_device(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Its output and errors; it must have succeeded."""
    told = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, told
    return told


def kept(folder):
    """What a run has left, but for the time that it took."""
    return {name: content for name, content in results(folder).items() if name != 'report.json'}


def test_encoding_that_is_killed_goes_on_and_what_it_gives_is_decoded(tmp_path):
    write_audio(tmp_path / 'audio', 14, 6, 0.2)
    small_model.save(tmp_path / 'model.safetensors')
    model = f'--checkpoint={tmp_path / "model.safetensors"}'
    encode = ('encode', model, f'--input={tmp_path / "audio"}', '--format=tfds')
    whole = start(*encode, f'--output={tmp_path / "whole"}')
    folder = tmp_path / 'killed'
    at_the_third = killed_at(3, folder / 'shards', ('os.rename',))
    with start(*encode, f'--output={folder}', before=at_the_third) as process:
        process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == -signal.SIGKILL
    finish(whole)
    done = len(list(folder.glob('shards/*/*.json')))
    assert done == 2
    assert not (folder / 'manifest.json').exists()
    finish(start(*encode, f'--output={folder}'))
    assert json.loads((folder / 'report.json').read_text())['shards_before'] == done
    assert kept(folder) == kept(tmp_path / 'whole')

    finish(start('decode', model, f'--input={folder}', f'--output={tmp_path / "wav"}'))
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert len(list((tmp_path / 'wav').rglob('*.wav'))) == manifest['files'] > 10
    for output in (folder, tmp_path / 'wav'):
        assert f'of {manifest["files"]} inputs are as they were written' in verify_job(output)
