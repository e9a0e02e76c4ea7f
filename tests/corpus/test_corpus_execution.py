"""A job from its beginning to its end, in this process and in processes that are killed."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from benchmarks import small_model
from m2l_jax.corpus import formats
from m2l_jax.corpus.formats import DatasetFormat, Target
from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Item, ShardSummary, plan_shards
from m2l_jax.corpus.run import RunOptions, run_job
from m2l_jax.corpus.verify import verify_job
from m2l_jax.interface.errors import InputError
from tests.conftest import on_one_device
from tests.corpus.fake_job import SETTINGS, FakeJob, plan, results
from tests.corpus.killing import killed_at
from tests.corpus.test_latent_dataset import make_file
from tests.drills.small_corpus import write_audio
from tests.waiting import HANG_SECONDS

ROOT = pathlib.Path(__file__).parents[2]


def test_a_report_that_cannot_be_written_hides_no_error(tmp_path):
    """Where a disk is full, nothing can be."""
    folder = tmp_path / 'out'
    _, shards = plan(30, ['full'])

    class Blocking(FakeJob):
        def open(self):
            (folder / 'report.json').mkdir()
            return super().open()

    with pytest.raises(InputError, match=r'full\.txt cannot be written \(No space left'):
        run_job(Blocking(str(folder)), shards, SETTINGS, folder, RunOptions())


class RecordJob:
    """Its own worker; writes a record or two for each item, but for those that are in `bad`."""

    COMPLETE = ('dataset_info.json', 'manifest.json', 'failures.csv')

    def __init__(self, target, bad, full=()):
        self.target, self._bad, self._full = target, bad, full
        self.seen = []  # what told of a complete job while a shard was worked on

    def open(self):
        return self

    def complete(self, summaries):
        DatasetFormat.complete(self.target, summaries)

    def work(self, shard, tell):
        folder = self.target.folder
        self.seen += [name for name in self.COMPLETE if (folder / name).exists()]
        bad = [item.source for item in shard.items if item.source in self._bad]
        good = [item for item in shard.items if item.source not in bad]
        with DatasetFormat(self.target, shard.number) as sink:
            for item in good:
                if item.source in self._full:
                    raise InputError('the disk is full')
                sink.write(item.source, make_file(item.bytes))
        failures = tuple((source, 'no audio') for source in bad)
        return ShardSummary(shard.number, len(good), 1.0, 1, tuple(sink.outputs), failures)


def write_records(folder, bad=(), full=(), retry=False):
    """Runs a job of six items in shards of two; the job."""
    shards = plan_shards([Item(str(number), '', number) for number in range(6)], 1.0, 2)
    job = RecordJob(Target(folder, 'tfds', 3, 'float32', 3), bad, full)
    run_job(job, shards, SETTINGS, folder, RunOptions(retry_failures=retry))
    return job


def test_a_dataset_whose_failures_are_tried_again_is_told_anew(tmp_path):
    """Items are of one channel for an odd number, else of two."""
    folder = tmp_path / 'set'
    write_records(folder, bad=('2', '5'))
    assert sum(formats.shard_lengths(folder).values()) == 6
    assert write_records(folder, retry=True).seen == []
    assert sum(formats.shard_lengths(folder).values()) == 9
    assert (folder / 'failures.csv').read_text() == 'file,reason\n'
    assert verify_job(folder).startswith('3 files with the latents or the audio of 6 inputs')


def test_what_is_tried_again_and_breaks_off_is_no_complete_dataset(tmp_path):
    folder = tmp_path / 'set'
    write_records(folder, bad=('2', '5'))
    with pytest.raises(InputError, match='the disk is full'):
        write_records(folder, full=('5',), retry=True)
    for name in RecordJob.COMPLETE:
        assert not (folder / name).exists()
    assert write_records(folder).seen == []
    assert sum(formats.shard_lengths(folder).values()) == 9


def test_shards_that_are_removed_by_hand_are_not_told_of_meanwhile(tmp_path):
    """As `--verify` advises for damaged ones."""
    folder = tmp_path / 'set'
    write_records(folder)
    (folder / 'shards/000/00001.json').unlink()
    assert write_records(folder).seen == []
    assert sum(formats.shard_lengths(folder).values()) == 9


def test_who_completes_a_job_that_another_has_begun_again_tells_nothing(tmp_path):
    """One process completes the job while another has shards done again."""
    folder = tmp_path / 'set'
    job = write_records(folder, bad=('2',))
    shards = plan_shards([Item(str(number), '', number) for number in range(6)], 1.0, 2)
    ledger = Ledger(folder)
    ledger.forget_failures(shards)
    job.complete([])  # what the other had begun to write before
    assert not ledger.finish(shards)
    assert not (folder / 'dataset_info.json').exists()


def start(module, *flags, before='', **environment):
    """A command in a process of its own, after lines of Python."""
    run = f'runpy.run_module("m2l_jax.{module}", run_name="__main__", alter_sys=True)'
    program = f'{before}\nimport runpy\n{run}'
    return subprocess.Popen(
        [sys.executable, '-c', program, *flags, '--shard_files=2', '--dtype=float32'],
        cwd=ROOT,
        env=on_one_device() | environment,
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


def test_a_process_under_slurm_takes_its_share_without_the_others(tmp_path):
    """One after the other: neither waits for another, or ends with one that is not there."""
    write_audio(tmp_path / 'audio', 6, 0, 0.2)
    small_model.save(tmp_path / 'model.safetensors')
    folder = tmp_path / 'out'
    flags = [f'--checkpoint={tmp_path / "model.safetensors"}', f'--input={tmp_path / "audio"}']
    slurm = {
        'SLURM_JOB_ID': '7',
        'SLURM_STEP_NODELIST': 'n[1-2]',
        'SLURM_NTASKS': '2',
        'SLURM_LOCALID': '0',
    }
    for number, shards in ((1, 1), (0, 3)):
        told = finish(
            start('encode', *flags, f'--output={folder}', **slurm, SLURM_PROCID=str(number))
        )
        assert f'this one takes {number}/2' in told[1]
        assert len(list(folder.glob('shards/*/*.json'))) == shards
        assert (folder / 'manifest.json').exists() == (number == 0)
    finish(start('encode', *flags, f'--output={tmp_path / "whole"}'))
    assert {n: c for n, c in kept(folder).items() if not n.startswith('report')} == kept(
        tmp_path / 'whole'
    )
