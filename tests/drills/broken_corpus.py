"""Are good files of a corpus encoded, and broken ones named, however they are broken?

    python -m tests.drills.broken_corpus --broken=1000 --good=100 --odd=200 --json=result.json

Hides good audio files of every format among broken ones (`tests.drills.mutated_audio`) and among
some whose numbers are absurd, encodes them all with `python -m m2l_jax.encode` and a very small
random model, verifies the output, and compares each good file's latents with those of
`EncoderDecoder.encode` of it alone. A run over the good files alone shows how much memory the
broken ones cost.

Then it encodes files of odd structure (`tests.drills.odd_audio`). Of each, the audio encoded must
be no shorter than what is in it and, unless that is known to the sample, than what ffmpeg, if
installed, reads of it; or the file must be refused or named in a warning.

Prints JSON, and exits with 1 if something must not be.
"""

import collections
import csv
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

import jax
import numpy as np
import soundfile
from absl import app, flags
from absl import logging as absl_logging

from benchmarks import report, small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.inputs import latent_items, read_latent_item
from tests.drills import mutated_audio, odd_audio

_BROKEN = flags.DEFINE_integer('broken', 1000, 'Broken files.')
_GOOD = flags.DEFINE_integer('good', 100, 'Good files.')
_LOUD = flags.DEFINE_integer('loud', 20, 'Files with finite numbers that no model can take.')
_ODD = flags.DEFINE_integer('odd', 200, 'Files that are joined, chained or misstate their length.')
_FORMAT = flags.DEFINE_enum('format', 'npz', ['npz', 'npy', 'tfds'], 'Of the output.')
_SHARD_FILES = flags.DEFINE_integer('shard_files', 200, 'Files in a shard.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of what is broken.')
_SECONDS = flags.DEFINE_float('most_seconds', 1800, 'After which a run is said to hang.')
_FOLDER = flags.DEFINE_string('folder', 'build/broken_corpus', 'Where to work.')
_JSON = flags.DEFINE_string('json', None, 'File to write the result to as well.')

_LEAST_SNR = 90  # dB
# Beyond what the good files alone take, of which there are fewer, of fewer lengths to compile for;
# headers claim gigabytes. 399 were seen, of compiled lengths and memory that the allocator keeps.
_MOST_EXTRA_MEGABYTES = 512
_MODEL = 'model.safetensors'
# Two frames of MP3: what encoders add at the ends, and some decoders keep.
_LOSSY_SLACK_SECONDS = 0.06
_SLACK_SECONDS = 0.001
_LOSSY = ('.mp3', '.ogg', '.opus')
_FFMPEG_RATE = 48_000


def main(_):
    """Encodes, verifies, compares, and prints the result."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    jax.config.update('jax_platforms', 'cpu')  # for latents that are to be equal
    folder = pathlib.Path(_FOLDER.value)
    shutil.rmtree(folder, ignore_errors=True)
    broken = _write_corpus(folder / 'audio')
    small_model.save(folder / _MODEL)
    alone = _encode(folder, folder / 'audio' / 'good', folder / 'alone')
    mixed = _encode(folder, folder / 'audio', folder / 'latents')
    verified = _run(folder, ['--verify', f'--output={folder / "latents"}'])
    result = {
        **report.describe_machine(),
        'format': _FORMAT.value,
        'seed': _SEED.value,
        'good_alone': alone,
        'with_broken': mixed,
        'verified': verified['exit_code'] == 0,
        **_judge(folder, broken),
        'odd': _judge_odd(folder),
    }
    wrong = _wrong(result)
    result['wrong'] = wrong
    text = json.dumps(result, indent=2)
    print(text)
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(text + '\n')
    if wrong:
        sys.exit(1)


def _write_corpus(folder: pathlib.Path) -> dict[str, str]:
    """Writes all files; returns what is certainly broken, by name, with what was done to it."""
    good, loud = folder / 'good', folder / 'loud'
    for path in (good, loud):
        path.mkdir(parents=True)
    chance = random.Random(_SEED.value)
    for number in range(_GOOD.value):
        suffix, kind, subtype = mutated_audio.KINDS[number % len(mutated_audio.KINDS)]
        content = mutated_audio.encode(kind, subtype, chance.choice((0.5, 1.0, 2.0)), number)
        (good / f'{number:04d}{suffix}').write_bytes(content)
    broken = {}
    for number in range(_LOUD.value):
        # Beyond what float32 holds, or within, but not to be squared or summed.
        largest, subtype = ((1e300, 'DOUBLE'), (1e38, 'FLOAT'), (-3e38, 'FLOAT'))[number % 3]
        samples = np.zeros((44_100, 1 + number % 2))
        samples[chance.randrange(10_000, 20_000) :][:1000] = largest
        soundfile.write(loud / f'{number:04d}.wav', samples, 44_100, subtype)
        broken[f'loud/{number:04d}.wav'] = f'samples of {largest:g}'
    written = mutated_audio.write_mutations(folder / 'broken', _SEED.value, _BROKEN.value)
    return broken | {
        f'broken/{name}': mutation.label for name, mutation in written.items() if mutation.broken
    }


def _encode(
    folder: pathlib.Path, source: pathlib.Path, output: pathlib.Path
) -> dict[str, float | int]:
    """Encodes a folder; returns seconds, peak memory and the exit code."""
    flags = [
        f'--input={source}',
        f'--output={output}',
        f'--checkpoint={folder / _MODEL}',
        f'--format={_FORMAT.value}',
        f'--shard_files={_SHARD_FILES.value}',
    ]
    return _run(folder, flags)


def _run(folder: pathlib.Path, arguments: list[str]) -> dict[str, float | int]:
    begin = time.monotonic()
    with open(folder / 'encode.log', 'a') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'm2l_jax.encode', *arguments],
            env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
            stdout=log,
            stderr=log,
        )
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - begin > _SECONDS.value:
            process.kill()
            sys.exit(f'it hangs: see {folder}/encode.log')
        time.sleep(0.1)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        'seconds': round(time.monotonic() - begin, 1),
        'peak_megabytes': round(usage.ru_maxrss / 1024),
        'exit_code': process.returncode,
    }


def _judge(folder: pathlib.Path, broken: Mapping[str, str]) -> dict:
    """What the output holds of good files and of broken ones."""
    failures = _read_reasons(folder / 'latents' / 'failures.csv')
    snrs, names = _compare(folder)
    inputs = [
        path.relative_to(folder / 'audio').as_posix() for path in (folder / 'audio').rglob('*.*')
    ]
    return {
        'files': len(inputs),
        'encoded': len(names),
        'failed': len(failures),
        'neither_or_both': sorted(n for n in inputs if (n in failures) == (_key(n) in names)),
        'certainly_broken': len(broken),
        'broken_yet_encoded': sorted(
            f'{name} ({label})' for name, label in broken.items() if name not in failures
        ),
        'good_yet_failed': sorted(name for name in failures if name.startswith('good/')),
        'good_encoded': len(snrs),
        'good_equal_bit_for_bit': snrs.count(np.inf),
        'good_least_snr_db': None if np.isinf(min(snrs)) else round(min(snrs), 1),
        'reasons_of_many_lines': sum('\n' in reason for reason in failures.values()),
        'alarms_in_the_log': _alarms(folder / 'encode.log'),
    }


def _judge_odd(folder: pathlib.Path) -> dict:
    """Encodes odd files, and counts what became of their audio."""
    odd = odd_audio.write_odd_files(folder / 'odd', _SEED.value, _ODD.value)
    odd['wrapped.wav'] = odd_audio.write_wrapped_wav(folder / 'odd' / 'wrapped.wav', 1.0)
    output = folder / 'odd_latents'
    exit_code = _encode(folder, folder / 'odd', output)['exit_code']
    told = {name: _read_reasons(output / f'{name}.csv') for name in ('failures', 'warnings')}
    encoded = {
        _key(name): stored.samples / stored.sample_rate
        for item in latent_items(str(output), folder / 'none')
        for name, stored in read_latent_item(item)
    }
    counts, lost = collections.Counter(), []
    for name, file in odd.items():
        reference = None if file.is_certain else _ffmpeg_seconds(folder / 'odd' / name)
        slack = _LOSSY_SLACK_SECONDS if file.suffix in _LOSSY else _SLACK_SECONDS
        seconds = encoded.get(_key(name))
        if name in told['failures']:
            outcome = 'refused'
        elif name in told['warnings']:
            outcome = 'named in a warning'
        elif seconds is None or seconds + slack < max(file.seconds, reference or 0):
            outcome = 'lost in silence'
            lost.append(f'{name} ({file.label}): {seconds} s of {file.seconds}, ffmpeg {reference}')
        elif reference is None:
            outcome = 'read whole'
        else:
            same = abs(seconds - reference) <= slack
            outcome = 'read as by ffmpeg' if same else 'read whole, more than by ffmpeg'
        counts[outcome] += 1
    return {'exit_code': exit_code, 'files': len(odd), **counts, 'lost': lost}


def _ffmpeg_seconds(path: pathlib.Path) -> float | None:
    """Seconds of audio that ffmpeg reads of a file; None without ffmpeg."""
    if shutil.which('ffmpeg') is None:
        return None
    command = ['ffmpeg', '-v', 'quiet', '-nostdin', '-i', path, '-ac', '1', '-ar']
    command += [str(_FFMPEG_RATE), '-f', 's16le', '-']
    samples = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while block := process.stdout.read(1 << 20):
            samples += len(block) / 2
    return samples / _FFMPEG_RATE


def _read_reasons(path: pathlib.Path) -> dict[str, str]:
    """Reasons by file, of a table that a job writes if it has something to tell."""
    if not path.exists():
        return {}
    with open(path, newline='') as file:
        return {row['file']: row['reason'] for row in csv.DictReader(file)}


def _compare(folder: pathlib.Path) -> tuple[list[float], set[str]]:
    """SNR in dB of each good file's latents against those of it alone, and all names encoded."""
    codec = EncoderDecoder(folder / _MODEL)
    sources = {_key(f'good/{path.name}'): path for path in (folder / 'audio' / 'good').iterdir()}
    snrs, names = [], set()
    for item in latent_items(str(folder / 'latents'), folder / 'none'):
        for name, stored in read_latent_item(item):
            names.add(_key(name))
            if _key(name) in sources:
                expected = codec.encode(str(sources[_key(name)]))
                snrs.append(_snr(stored.latents, expected))
    return snrs, names


def _snr(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return -np.inf
    with np.errstate(divide='ignore'):
        error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        return float(-20 * np.log10(error))


def _key(name: str) -> str:
    """A name without its suffix, which files of latents have lost."""
    return os.path.splitext(name)[0]


def _alarms(path: pathlib.Path) -> list[str]:
    """Lines of the log that no user should see; remarks of decoders are not counted."""
    lines = path.read_text(errors='replace').splitlines()
    return [line for line in lines if re.search(r'Traceback|\wWarning', line)]


def _wrong(result: Mapping) -> list[str]:
    """Names of the checks that failed."""
    extra = result['with_broken']['peak_megabytes'] - result['good_alone']['peak_megabytes']
    least = result['good_least_snr_db']
    checks = {
        'a run has failed': any(result[run]['exit_code'] for run in ('good_alone', 'with_broken')),
        'the output is not as it was written': not result['verified'],
        'files are lost, or both encoded and failed': result['neither_or_both'],
        'broken files are encoded': result['broken_yet_encoded'],
        'good files have failed': result['good_yet_failed'],
        'good files are missing': result['good_encoded'] != _GOOD.value,
        'good files differ': least is not None and least < _LEAST_SNR,
        'reasons are more than a line': result['reasons_of_many_lines'],
        'the log has what no user should see': result['alarms_in_the_log'],
        'broken files cost memory': extra > _MOST_EXTRA_MEGABYTES,
        'odd files lost audio in silence': result['odd']['lost'],
        'odd files ended the run': result['odd']['exit_code'],
    }
    return [name for name, failed in checks.items() if failed]


if __name__ == '__main__':
    app.run(main)
