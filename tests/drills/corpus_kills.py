"""Does a disturbed corpus job end with the same bytes as an undisturbed one?

    python -m tests.drills.corpus_kills --trouble=kill --trouble=full --format=npz

Encodes a corpus of small files (npz, tfds), or decodes the latents (wav), once undisturbed, and
once for each trouble: `kill -9` at random moments; three processes with a share each, all of them
asked to stop with SIGTERM; a disk that is full, again and again; a Ray cluster that loses one of
its two nodes. In the end both folders must hold the same files, byte for byte. Prints JSON.
"""

import collections
import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

from benchmarks import report, small_model
from tests.drills.small_corpus import write_audio

_TROUBLE = flags.DEFINE_multi_enum(
    'trouble', ['kill'], ['kill', 'shares', 'full', 'ray'], 'Given again for each.'
)
_FORMATS = flags.DEFINE_multi_enum(
    'format', ['npz', 'tfds'], ['npz', 'tfds', 'wav'], 'Given again for each.'
)
_FILES = flags.DEFINE_integer('files', 500, 'That are whole, of the corpus; more are broken.')
_KILLS = flags.DEFINE_integer('kills', 30, 'How often to kill, or to ask to stop.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the corpus and of the moments.')
_FOLDER = flags.DEFINE_string('folder', 'build/corpus_kills', 'Where to work.')

_BROKEN = 40
_SECONDS = 0.5
_SHARES = 3
_FULL = (0.002, 0.1, 0.4, 0.7, 0.9, 0.98)  # disks, as parts of what is needed
_LOST_AFTER = 0.3  # of the shards
_STORE = 80_000_000  # bytes, about the least that Ray takes


def main(_):
    """Runs everything undisturbed and disturbed, and prints the result."""
    folder = pathlib.Path(_FOLDER.value).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    write_audio(folder / 'audio', _FILES.value, _BROKEN, _SECONDS, _SEED.value)
    # In a process of its own: JAX does not like the process that has loaded it to start others.
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        pool.apply(small_model.save, (folder / 'model.safetensors',))
    results = []
    for kind in dict.fromkeys(['npz', *_FORMATS.value]):  # npz is what wav is decoded from
        work = _Work(folder, kind)
        in_peace = work.do_in_peace()
        if kind not in _FORMATS.value:
            continue
        for name in _TROUBLE.value:
            begin = time.monotonic()
            told = _TROUBLES[name](work, work.folder / name)
            equal = work.compare(work.folder / name, 'one_core' if name == 'ray' else 'peace')
            seconds = time.monotonic() - begin
            results.append({'trouble': name, **in_peace, **told, **equal, 'seconds': seconds})
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps({**report.describe_machine(), 'results': results}, indent=2))
    if not all(
        result['identical'] and result['verified'] and result['as_expected'] for result in results
    ):
        sys.exit(1)


class _Work:
    """A command, its result in peace, and how long that took."""

    def __init__(self, folder: pathlib.Path, kind: str):
        self.kind = kind
        self.folder = folder / kind
        self.folder.mkdir()
        source = folder / 'npz/peace' if kind == 'wav' else folder / 'audio'
        self._command = [
            *(sys.executable, '-m', 'm2l_jax.decode' if kind == 'wav' else 'm2l_jax.encode'),
            *(f'--checkpoint={folder / "model.safetensors"}', f'--input={source}'),
            *(f'--format={kind}', '--shard_files=5', '--dtype=float32'),
        ]
        self.begin_seconds = self.work_seconds = 0.0
        self.shards = 0

    def do_in_peace(self) -> dict[str, Any]:
        """Runs and verifies it; returns the figures that all results have."""
        output, begin = self.folder / 'peace', time.monotonic()
        _check(self.start(output).wait() == 0, f'see {output}.log')
        whole = time.monotonic() - begin
        self.work_seconds = json.loads((output / 'report.json').read_text())['seconds']
        self.begin_seconds = whole - self.work_seconds
        manifest = json.loads((output / 'manifest.json').read_text())
        names = [output['name'] for shard in manifest['shards'] for output in shard['outputs']]
        _check(len(set(names)) == len(names), 'an output is there twice')
        _check(manifest['files'] + manifest['failures'] == manifest['input']['files'], 'one lacks')
        self.shards = len(manifest['shards'])
        counts = {name: manifest[name] for name in ('files', 'failures', 'bytes')}
        return {'format': self.kind, 'shards': self.shards, **counts}

    def start(self, output: pathlib.Path, *more: str, **environment: str) -> subprocess.Popen:
        """A process of its own, that writes a log beside the output."""
        with open(f'{output}.log', 'a') as log:
            return subprocess.Popen(
                self.command(output, *more),
                env={**os.environ, **self.environment(output), **environment},
                stdout=log,
                stderr=log,
            )

    def command(self, output: pathlib.Path, *more: str) -> list[str]:
        """The command line."""
        return [*self._command, f'--output={output}', *more]

    def environment(self, output: pathlib.Path) -> dict[str, str]:
        """Without what others have compiled, so that compiling is interrupted too."""
        return {'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': f'{output}.cache'}

    def done(self, output: pathlib.Path) -> int:
        """Shards that are committed."""
        return len(list(output.glob('shards/*/*.json')))

    def compare(self, output: pathlib.Path, other: str) -> dict[str, Any]:
        """Whether all is as in another run, leftovers too, and can be read again."""
        expected, found = _digests(self.folder / other), _digests(output)
        names = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        verified = self.start(output, '--verify').wait() == 0
        return {'identical': not names, 'differences': names[:10], 'verified': verified}


def _kill(work: _Work, output: pathlib.Path) -> dict[str, Any]:
    """Half of the kills come while the process begins, the others while it works."""
    chance, codes, done = random.Random(_SEED.value), [], []
    while len(codes) < _KILLS.value:
        process = work.start(output)
        if len(codes) % 2:
            time.sleep(chance.uniform(0, work.begin_seconds))
        else:
            _let_work(work, output, process, chance, _KILLS.value - len(codes))
        process.kill()
        codes.append(process.wait())
        done.append(work.done(output))
    finished = work.start(output).wait() == 0
    killed = codes.count(-signal.SIGKILL)
    return {
        'as_expected': finished and killed == len(codes) and done[-1] > 0,
        'kills': killed,
        'shards_done_after_each': done,
    }


def _let_work(
    work: _Work,
    output: pathlib.Path,
    process: subprocess.Popen,
    chance: random.Random,
    kills: int,
) -> None:
    """Returns at a random moment, before so much is done that nothing is left for later kills."""
    before = work.done(output)
    wanted = before + chance.uniform(0, 2 * (work.shards - before) / (kills + 1))
    while work.done(output) <= wanted and process.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, work.work_seconds / work.shards))


def _share(work: _Work, output: pathlib.Path) -> dict[str, Any]:
    """Three processes in one folder are asked to stop, until nothing is left to be done."""
    chance, codes = random.Random(_SEED.value), collections.Counter()
    for _ in range(max(1, _KILLS.value // 6)):
        processes = _start_shares(work, output)
        # All three share the cores, and begin later.
        time.sleep(chance.uniform(1, 3) * work.begin_seconds)
        for process in processes:
            process.terminate()
        codes.update(process.wait() for process in processes)
    last = [process.wait() for process in _start_shares(work, output)]
    # A process that has not begun to work ends by the signal itself.
    expected = codes.keys() <= {0, 75, -signal.SIGTERM} and codes[75] > 0 and not any(last)
    return {'as_expected': expected, 'exit_codes': {str(code): codes[code] for code in codes}}


def _start_shares(work: _Work, output: pathlib.Path) -> list[subprocess.Popen]:
    return [work.start(output, f'--shard={index}/{_SHARES}') for index in range(_SHARES)]


_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=4k tmpfs "$DISK" || exit 99
for size in $SIZES; do
  mount -o remount,size=$size "$DISK"
  "$@"
  echo "exit $? leftovers $(find "$DISK" -name '*.partial' | wc -l)"
done
cp -r "$DISK/out" "$OUTPUT"
"""


def _fill(work: _Work, output: pathlib.Path) -> dict[str, Any]:
    """A disk that grows each time that it was full; in a name space of its own, without root."""
    disk = work.folder / 'disk'
    disk.mkdir()
    needed = sum(path.stat().st_blocks * 512 for path in (work.folder / 'peace').rglob('*'))
    sizes = [*(int(part * needed) for part in _FULL), 4 * needed]
    result = subprocess.run(
        ['unshare', '-Urm', 'bash', '-c', _ON_A_SMALL_DISK, 'bash', *work.command(disk / 'out')],
        env={
            **os.environ,
            **work.environment(output),
            'DISK': str(disk),
            'OUTPUT': str(output),
            'SIZES': ' '.join(map(str, sizes)),
        },
        capture_output=True,
        text=True,
    )
    pathlib.Path(f'{output}.log').write_text(result.stdout + result.stderr)
    ends = [line for line in result.stdout.splitlines() if line.startswith('exit ')]
    # Besides what is logged, with the time, a line for each end.
    told = [line for line in result.stderr.splitlines() if not re.match(r'\d\d:\d\d:\d\d ', line)]
    full = ends.count('exit 1 leftovers 0')
    as_expected = (
        full > 3
        and ends == ['exit 1 leftovers 0'] * full + ['exit 0 leftovers 0'] * (len(ends) - full)
        and len(told) == full < len(ends)
        and all(re.fullmatch(r'error: .* cannot be written \(.*No space left.*', t) for t in told)
    )
    return {'as_expected': as_expected, 'ends': ends, 'told': told}


def _lose_a_node(work: _Work, output: pathlib.Path) -> dict[str, Any]:
    """A Ray cluster loses one of its two nodes: its daemon and its workers, all at once.

    An actor has one core, and so has what is compared: in what order XLA adds depends on it.
    """
    _check(work.start(work.folder / 'one_core', NPROC='1').wait() == 0, 'on one core it failed')
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    from ray.cluster_utils import Cluster

    head = {'num_cpus': 0, 'include_dashboard': False, 'object_store_memory': _STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=_STORE) for _ in range(2)]
        process = work.start(
            output, '--runner=ray', f'--ray_address={cluster.address}', '--ray_cpus=1'
        )
        killed = _when(process, lambda: work.done(output) >= _LOST_AFTER * work.shards, nodes[0])
        done = work.done(output)
        finished = process.wait() == 0
        cluster.remove_node(nodes[0], allow_graceful=False)
    finally:
        cluster.shutdown()
    return {
        'as_expected': finished and killed > 1 and done < work.shards,
        'processes_killed': killed,
        'shards_done_before': done,
    }


def _when(process: subprocess.Popen, condition: Callable[[], bool], node: Any) -> int:
    """Kills a node's daemon and workers once something holds; returns how many those were."""
    while not condition() and process.poll() is None:
        time.sleep(0.05)
    doomed = _family(node.all_processes['raylet'][0].process.pid)
    for number in doomed:
        os.kill(number, signal.SIGKILL)
    return len(doomed)


def _family(number: int) -> list[int]:
    """A process and all that it has started, itself first."""
    children = pathlib.Path(f'/proc/{number}/task/{number}/children').read_text().split()
    return [number, *(member for child in children for member in _family(int(child)))]


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of every file but reports, which tell how long it took."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file() and not path.name.startswith('report')
    }


def _check(holds: bool, message: str) -> None:
    if not holds:
        sys.exit(message)


_TROUBLES: dict[str, Callable[[_Work, pathlib.Path], dict[str, Any]]] = {
    'kill': _kill,
    'shares': _share,
    'full': _fill,
    'ray': _lose_a_node,
}

if __name__ == '__main__':
    app.run(main)
