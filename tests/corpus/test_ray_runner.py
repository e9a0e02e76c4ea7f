import builtins
import collections
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from m2l_jax.corpus import ray as ray_run
from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import RunOptions
from m2l_jax.corpus.ray import run_ray
from m2l_jax.corpus.run import Progress, run_local
from m2l_jax.interface.errors import InputError
from tests.corpus.fake_job import SETTINGS, FakeJob, ThreadCountingJob, plan, results
from tests.waiting import HANG_SECONDS, wait_until

cluster_utils = pytest.importorskip('ray.cluster_utils')

STORE = 80_000_000  # bytes, about the least that Ray takes
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def cluster():
    """A node of one core, and a head that has none."""
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    head = {'num_cpus': 0, 'include_dashboard': False, 'object_store_memory': STORE}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield cluster
    cluster.shutdown()


def run(cluster, folder, count, trouble=(), seconds=0.0):
    items, shards = plan(count, trouble)
    ledger, progress = Ledger(folder), Progress(shards)
    ledger.claim(SETTINGS, items)
    options = RunOptions(ray=cluster.address, ray_cpus=1)
    try:
        run_ray(FakeJob(str(folder), seconds), shards, ledger, progress, options)
    finally:
        report = progress.close()
    return ledger, shards, report


def finish_alone(folder, count):
    """What a run without Ray leaves."""
    items, shards = plan(count)
    ledger = Ledger(folder)
    ledger.claim(SETTINGS, items)
    run_local(FakeJob(str(folder)), shards, ledger, Progress(shards))
    assert ledger.finish(shards)
    return results(folder)


def test_a_lost_node_costs_its_current_shards_only(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def lose_a_node():
        wait_until(lambda: len(list(folder.glob('shards/*/*.json'))) >= 8)
        cluster.remove_node(node, allow_graceful=False)

    folder = tmp_path / 'out'
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    ledger, shards, report = run(cluster, folder, 120, seconds=0.05)
    thread.join()
    assert node not in cluster.list_all_nodes()
    assert (report.shards, report.files, report.shards_missing) == (40, 120, 0)
    assert ledger.finish(shards)
    left = results(folder)
    assert {name: left[name] for name in left if not name.endswith('.partial')} == finish_alone(
        tmp_path / 'alone', 120
    )
    # What was done before was not done again; the node had two shards under way.
    times = collections.Counter((tmp_path / 'out.log').read_text().split())
    assert sum(times.values()) <= 40 + 2
    assert len(times) == 40


def test_the_shards_of_a_lost_process_are_given_to_another(cluster, tmp_path):
    ledger, shards, report = run(cluster, tmp_path / 'out', 9, ['die-once'])
    assert (report.shards, report.files) == (4, 10)
    assert ledger.finish(shards)


def test_a_shard_that_ends_every_process_is_named(cluster, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r'^shard \d has ended 3 processes, .* begins with /in/'):
        run(cluster, tmp_path / 'out', 9, ['die'])
    _, shards = plan(9, ['die'])
    missing = Ledger(tmp_path / 'out').missing(shards)
    assert ['die' in [item.source for item in shard.items] for shard in missing] == [True]


def test_an_error_on_a_node_ends_the_run_with_its_line(cluster, tmp_path):
    with pytest.raises(InputError) as caught:
        run(cluster, tmp_path / 'out', 9, ['full'])
    assert str(caught.value) == (
        f'{tmp_path}/out/full.txt cannot be written (No space left on device); what is complete is '
        'kept: put this right, and run the same command again'
    )


def test_a_second_run_has_nothing_to_do(cluster, tmp_path):
    run(cluster, tmp_path / 'out', 9)
    _, _, report = run(cluster, tmp_path / 'out', 9)
    assert (report.shards, report.shards_before) == (0, 3)


def test_an_actor_keeps_to_its_cores(cluster, tmp_path):
    items, shards = plan(3)
    ledger, progress = Ledger(tmp_path / 'out'), Progress(shards)
    ledger.claim(SETTINGS, items)
    run_ray(
        ThreadCountingJob(str(tmp_path / 'out')),
        shards,
        ledger,
        progress,
        RunOptions(ray=cluster.address, ray_cpus=1),
    )
    (counts,) = {path.read_text() for path in tmp_path.glob('out.threads.*')}
    assert counts == '1'


def test_sigterm_drops_what_is_under_way_and_the_same_command_goes_on(cluster, tmp_path):
    folder = tmp_path / 'out'
    arguments = [str(folder), '120', '0', '0/1', cluster.address, '4']
    command = [sys.executable, '-m', 'tests.corpus.fake_job', *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(list(folder.glob('shards/*/*.json'))) == 4)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 75, errors
    assert errors.splitlines()[-1].startswith('stopped with ')
    assert not list(folder.rglob('*.partial'))
    ledger, shards, report = run(cluster, folder, 120)
    assert report.shards == 36
    assert ledger.finish(shards)
    assert results(folder) == finish_alone(tmp_path / 'alone', 120)


def test_more_cores_than_a_node_has_are_refused(cluster, tmp_path):
    _, shards = plan(3)
    with pytest.raises(InputError, match=r'no node of the Ray cluster has 4 cores: pass fewer --'):
        run_ray(
            FakeJob(''),
            shards,
            Ledger(tmp_path),
            Progress(shards),
            RunOptions(ray=cluster.address, ray_cpus=4),
        )


@pytest.mark.parametrize(
    ('address', 'reason'),
    [
        ('127.0.0.1:1', 'Connection refused'),
        ('ray://127.0.0.1:10001', "this is for Ray's client"),
        ('rubbish', 'Invalid address format'),
    ],
)
def test_an_address_without_a_cluster_is_refused(tmp_path, address, reason):
    _, shards = plan(3)
    with pytest.raises(InputError, match=rf'^--ray_address={address} cannot be .*{reason}.*\): '):
        run_ray(FakeJob(''), shards, Ledger(tmp_path), Progress(shards), RunOptions(ray=address))


def test_without_ray_its_installation_is_named(tmp_path, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *rest):
        if name == 'ray':
            raise ModuleNotFoundError(name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, '__import__', refuse)
    _, shards = plan(3)
    with pytest.raises(InputError, match=r"no module ray\): pip install 'm2l_jax\[ray\]'"):
        run_ray(FakeJob(''), shards, Ledger(tmp_path), Progress(shards), RunOptions(ray='auto'))


def test_a_node_whose_accelerator_jax_does_not_find_is_named():
    with pytest.raises(InputError, match=r"^JAX finds no GPU on .*: install there 'm2l_jax\[cuda"):
        ray_run._Actor().open(FakeJob(''), '', 1, 'GPU')
