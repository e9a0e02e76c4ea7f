"""Compares what a change of the code must not change with the values in `tools/goldens.json`.

    python -m tools.goldens                             all, a quarter of an hour on two cores
    python -m tools.goldens --only=parameters,streams   some sections
    python -m tools.goldens --only=compile --write      replaces the stored values of a section

Prints one line for each value that differs; the exit code is 1 if there are any. Floats are
compared to 1e-4 of their size. The hashes in `bytes` hold on processors like the one that they
were written on.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

REPOSITORY = pathlib.Path(__file__).parents[1]
GOLDENS = pathlib.Path(__file__).with_suffix('.json')
OLD_RUN = pathlib.Path(__file__).with_name('old_run.tar.xz')

_TOLERANCE = 1e-4
_TIMEOUT = 1800
_ENVIRONMENT = {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '',
    'JAX_COMPILATION_CACHE_DIR': str(REPOSITORY / 'build' / 'goldens-cache'),
}
_TINY = {
    'base_channels': 4,
    'channel_multipliers': (1, 2),
    'downsampling': ((2, 2),),
    'attention': (False, True),
    'attention_heads': 2,
    'unet_blocks': 1,
    'bottleneck_channels': 8,
    'bottleneck_blocks': 1,
    'latent_channels': 4,
    'embedding_channels': 8,
}
_TINY_FLAGS = (
    '--config=configs/demo.py',
    '--config.init_from=',
    *(f'--config.model.{name}={value}' for name, value in _TINY.items()),
    '--config.model.spectrogram.window=256',
    '--config.model.spectrogram.hop=64',
    '--config.data.batch_size=4',
    '--config.data.crop_frames=8',
    '--config.optimizer.warmup_steps=2',
    '--config.train.log_every=1',
    '--config.train.checkpoint_every=3',
)
# What depends on the time or the machine.
_VARYING = ('report.json', 'manifest.json')


def parameters() -> dict[str, Any]:
    """Paths, shapes and PyTorch names of all parameters; ids of models; initial values."""
    import jax

    from m2l_jax import EncoderDecoder, ModelConfig, Music2Latent
    from m2l_jax.torch_weights.names import name_table

    found: dict[str, Any] = {}
    for name, config in {'default': ModelConfig(), 'tiny': _tiny_config()}.items():
        shapes = jax.eval_shape(Music2Latent(config).init_params, jax.random.key(0))
        leaves = {_path(path): leaf.shape for path, leaf in _leaves(shapes)}
        names = {'/'.join(entry.path): entry.tensor for entry in name_table(config)}
        found[name] = {
            path: f'{names[path]} {"x".join(map(str, shape))}'
            for path, shape in sorted(leaves.items())
        }
    params = Music2Latent(_tiny_config()).init_params(jax.random.key(0, impl='threefry2x32'))
    found['initial'] = {_path(path): _summary(leaf) for path, leaf in _leaves(params)}
    with tempfile.TemporaryDirectory() as folder:
        codec = EncoderDecoder(_write_model(pathlib.Path(folder) / 'model.safetensors'))
        found['model_id'] = {'tiny': codec.model_id, 'small': EncoderDecoder('small').model_id}
    return found


def streams() -> dict[str, Any]:
    """Crops read and cut on devices, noise indices and noise, of three steps."""
    with tempfile.TemporaryDirectory() as folder:
        return _streams(_write_music(pathlib.Path(folder)))


def _streams(music: pathlib.Path) -> dict[str, Any]:
    import jax

    from m2l_jax.data.config import Collection
    from m2l_jax.data.crops import CropReader
    from m2l_jax.data.resident import ResidentCorpus, ResidentLoader, cut_crops
    from m2l_jax.data.sources import open_collections
    from m2l_jax.model.autoencoder import Music2Latent
    from m2l_jax.training import mesh as meshes
    from m2l_jax.training.step import draw, step_key

    settings = _tiny_training(music)
    model, batch, crop = Music2Latent(settings.model), 4, 1000
    mix = [Collection('a', str(music), 0.75), Collection('b', str(music / 'stereo.wav'), 0.25)]
    reader = CropReader(open_collections(mix, 44_100, crop), 7, 0.001)
    mesh = meshes.make_mesh(jax.devices()[:1])
    loader = ResidentLoader(mesh, meshes.AXIS, crop, 0.001)
    corpus = loader.load(open_collections(mix, 44_100, crop))
    cut = jax.jit(
        jax.shard_map(
            lambda corpus, key: cut_crops(corpus, key, batch, crop, meshes.AXIS),
            mesh=mesh,
            in_specs=(ResidentCorpus.specs(meshes.AXIS), meshes.REPLICATED),
            out_specs=meshes.ROWS,
        )
    )
    found = {}
    for step in range(3):
        key = step_key(7, step)
        rows = np.arange(batch)
        draws = draw(key, rows, (128, 8, 2), model, settings.consistency.density)
        found[f'step {step}'] = {
            'key': np.asarray(jax.random.key_data(key)).tolist(),
            'crops': _sha256(np.stack([reader.read(step, row) for row in rows])),
            'crops on devices': _sha256(cut(corpus, key)),
            'index': np.asarray(draws.index).tolist(),
            'noise': _summary(draws.noise),
        }
    return found


def flags() -> dict[str, Any]:
    """Flags of every command: type, default and choices."""
    return {
        path.stem: _flags_of(f'm2l_jax.{path.stem}')
        for path in sorted((REPOSITORY / 'm2l_jax').glob('*.py'))
        if not path.stem.startswith('_')
    }


def _flags_of(module: str) -> dict[str, str]:
    # The config's fields are flags too, but none of the command's own.
    result = _run(module, '--helpxml')
    text = result.stdout[result.stdout.index('<?xml') :].replace(f'{REPOSITORY}/', '')
    found = {}
    for flag in xml.etree.ElementTree.fromstring(text.encode()).iter('flag'):
        if flag.findtext('key') != 'yes':
            continue
        choices = '|'.join(choice.text or '' for choice in flag.iter('enum_value'))
        kind = flag.findtext('type')
        default = '' if kind == 'config object' else f'default {flag.findtext("default")!r}'
        words = (kind, choices, default)
        found[flag.findtext('name') or ''] = ' '.join(word for word in words if word)
    return found


def exits() -> dict[str, Any]:
    """Exit codes of mistakes and of interruptions, and whether one line says why."""
    with tempfile.TemporaryDirectory() as folder:
        return _exits(pathlib.Path(folder))


def _exits(folder: pathlib.Path) -> dict[str, str]:
    music, model = _write_music(folder / 'music'), _write_model(folder / 'model.safetensors')
    other, empty = _write_model(folder / 'other.safetensors', seed=1), folder / 'empty'
    empty.mkdir()
    (folder / 'broken').mkdir()
    (folder / 'broken' / 'text.wav').write_text('not audio')
    (music / 'text.wav').write_text('not audio')
    coder = (f'--checkpoint={model}', '--chunk_seconds=1')
    out, latents = f'--output={folder / "out"}', folder / 'latents'
    train = (*_TINY_FLAGS, f'--config.data.path={music}', f'--workdir={folder / "run"}')
    cases: dict[str, tuple[str, ...]] = {
        'encode: good files and a broken one': (
            'encode',
            *coder,
            f'--input={music}',
            f'--output={latents}',
        ),
        'encode: again': ('encode', *coder, f'--input={music}', f'--output={latents}'),
        'encode: other settings': (
            'encode',
            *coder,
            '--pad',
            f'--input={music}',
            f'--output={latents}',
        ),
        'encode: verify': ('encode', '--verify', f'--output={latents}'),
        'encode: missing input': ('encode', *coder, '--input=/nowhere/a.wav', out),
        'encode: no input': ('encode', *coder, out),
        'encode: unknown flag': ('encode', '--colour=red'),
        'encode: bad share': ('encode', *coder, '--shard=3/2', f'--input={music}', out),
        'encode: missing checkpoint': (
            'encode',
            '--checkpoint=/nowhere',
            f'--input={music}',
            out,
        ),
        'encode: broken files only': ('encode', *coder, f'--input={folder / "broken"}', out),
        'encode: empty folder': ('encode', *coder, f'--input={empty}', out),
        'decode: other model': (
            'decode',
            f'--checkpoint={other}',
            f'--input={latents / "mono.npz"}',
            out,
        ),
        'decode: missing input': ('decode', *coder, '--input=/nowhere', out),
        'train: no data': ('train', '--config=configs/default.py', f'--workdir={folder / "no"}'),
        'train: missing data': ('train', *train, '--config.data.path=/nowhere'),
        'train: unknown field': ('train', *train, '--config.data.bach_size=3'),
        'train: bad type': ('train', *train, '--config.data.batch_size=x'),
        'train: bad value': ('train', *train, '--config.model.dtype=int3'),
        'train: missing config': ('train', '--config=configs/none.py', '--workdir=x'),
        'train: argument': ('train', *train, 'extra'),
        'train: minutes': ('train', *train, '--minutes=0.0001'),
        'prepare: missing input': ('prepare', '--input=/nowhere', out),
        'prepare: broken files only': ('prepare', f'--input={folder / "broken"}', out),
        'reconstruct: missing checkpoint': (
            'reconstruct',
            f'--checkpoint={empty}',
            '--input=a.wav',
            out,
        ),
        'reconstruct: missing input': ('reconstruct', *coder[:1], '--input=none.wav', out),
        'evaluate: missing input': ('evaluate', *coder[:1], '--input=/nowhere', out),
        'convert: missing input': ('convert', '--from=/nowhere.pt', f'--to={folder / "x.pt"}'),
        'compare: no model': ('compare',),
        'compile: unknown slice': ('compile', '--config=configs/demo.py', '--topology=v9-8'),
        'plot: no curves': ('plot', f'--workdir={empty}', out),
        'demo: unknown flag': ('demo', '--colour=red'),
    }
    found = {name: _ending(_run(f'm2l_jax.{case[0]}', *case[1:])) for name, case in cases.items()}
    npz = latents / 'mono.npz'
    npz.write_bytes(npz.read_bytes()[:-1])
    damaged = _run('m2l_jax.encode', '--verify', f'--output={latents}')
    found['encode: verify a damaged file'] = _ending(damaged)
    found['train: SIGTERM'] = _terminated(*train, '--config.train.steps=100000')
    left = sorted(path.name for path in folder.iterdir())
    return {**found, 'left behind': ' '.join(left)}


def _ending(result: subprocess.CompletedProcess[str]) -> str:
    if 'Traceback' in result.stderr:
        return f'{result.returncode}, traceback'
    last = (result.stderr.strip().splitlines() or [''])[-1]
    return f'{result.returncode}' + (', error in a line' if last.startswith('error: ') else '')


def _terminated(*arguments: str) -> str:
    process = subprocess.Popen(
        [sys.executable, '-m', 'm2l_jax.train', *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **_ENVIRONMENT},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r'step \d+/100000', line):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    return _ending(subprocess.CompletedProcess([], process.wait(_TIMEOUT), '', rest))


def files() -> dict[str, Any]:
    """SHA-256 of encoded shards, decoded audio and prepared datasets."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        music, model = _write_music(folder / 'music'), _write_model(folder / 'model.safetensors')
        coder = (f'--checkpoint={model}', '--chunk_seconds=1')
        encode = ('m2l_jax.encode', *coder, f'--input={music}', '--shard_megabytes=0.2')
        runs = {
            'npz': (*encode, '--overlap=0.2'),
            'npy': (*encode, '--storage=bfloat16', '--features', '--channels=mono', '--pad'),
            'tfds': (*encode, '--storage=float16'),
            'wav': ('m2l_jax.decode', *coder, f'--input={folder / "npz"}', '--overlap=0.3'),
            'prepared': ('m2l_jax.prepare', f'--input={music}', '--segment_seconds=1'),
        }
        found: dict[str, Any] = {}
        for kind, (module, *arguments) in runs.items():
            chosen = (f'--format={kind}',) if module == 'm2l_jax.encode' else ()
            result = _run(module, *arguments, *chosen, f'--output={folder / kind}')
            if result.returncode:
                found[kind] = _ending(result) + ': ' + result.stderr[-500:]
                continue
            paths = sorted(path for path in (folder / kind).rglob('*') if path.is_file())
            found[kind] = {
                str(path.relative_to(folder / kind)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in paths
                if path.name not in _VARYING
            }
        stored = np.load(folder / 'npz' / 'mono.npz')
        found['latents'] = _summary(stored['latents'])
        found['fields of npz'] = ' '.join(sorted(stored.files))
        return found


def training() -> dict[str, Any]:
    """Losses of a tiny training, and of one that an older version began."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        music = _write_music(folder / 'music')
        found = {}
        for kind in ('resident=False', 'resident=True', 'representation=waveform'):
            workdir = folder / kind
            found[kind] = _losses(workdir, music, f'--config.data.{kind}')
        old = folder / 'old'
        old.mkdir()
        subprocess.run(['tar', '-xJf', OLD_RUN, '-C', old], check=True)
        found['from an older checkpoint'] = _losses(old / 'run', music)
        return found


def write_old_run() -> None:
    """Writes the run that `training` goes on with; only when its content is to change."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        music = _write_music(folder / 'music')
        flags = ('--config.train.steps=6', f'--workdir={folder / "run"}', '--minutes=0.0001')
        _run('m2l_jax.train', *_TINY_FLAGS, f'--config.data.path={music}', *flags)
        subprocess.run(['tar', '-cJf', OLD_RUN, '-C', folder, 'run'], check=True)


def _losses(workdir: pathlib.Path, music: pathlib.Path, *flags: str) -> Any:
    where = (f'--config.data.path={music}', f'--workdir={workdir}', '--config.train.steps=6')
    result = _run('m2l_jax.train', *_TINY_FLAGS, *where, *flags)
    if result.returncode:
        return _ending(result) + ': ' + result.stderr[-500:]
    _run('m2l_jax.plot', f'--workdir={workdir}', f'--output={workdir / "curves"}')
    curves = json.loads((workdir / 'curves' / 'curves.json').read_text())
    names = ('loss', 'gradient_norm', 'update_norm')
    return {name: curves[name] for name in names if name in curves}


def compiled() -> dict[str, Any]:
    """The compiler's report of the full-size training step on a TPU v4-8."""
    flags = ('--config=configs/tpu_v4.py', '--topology=v4-8', '--json')
    result = _run('m2l_jax.compile', *flags)
    if result.returncode:
        return {'failed': result.stderr[-500:]}
    report = json.loads(result.stdout)
    del report['compile_seconds']
    return report


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    'parameters': parameters,
    'streams': streams,
    'flags': flags,
    'exits': exits,
    'bytes': files,
    'training': training,
    'compile': compiled,
}


def differences(old: Any, new: Any, where: str) -> list[str]:
    """One line for each value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = [f'{where}: {name} is gone' for name in old if name not in new]
        lines += [f'{where}: {name} is new: {new[name]}' for name in new if name not in old]
        for name in (name for name in old if name in new):
            lines += differences(old[name], new[name], f'{where}: {name}')
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = zip(old, new, strict=True)
        return [
            line
            for number, pair in enumerate(pairs)
            for line in differences(*pair, f'{where}[{number}]')
        ]
    if _is_number(old) and _is_number(new):
        if math.isclose(old, new, rel_tol=_TOLERANCE, abs_tol=1e-6):
            return []
        share = f' ({100 * (new / old - 1):+.1f} %)' if old else ''
        return [f'{where}: {old:g} -> {new:g}{share}']
    return [] if old == new else [f'{where}: {old} -> {new}']


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', module, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )


def _tiny_config() -> Any:
    from m2l_jax import ModelConfig, SpectrogramConfig

    return ModelConfig(**_TINY, spectrogram=SpectrogramConfig(window=256, hop=64))


def _tiny_training(music: pathlib.Path) -> Any:
    from m2l_jax.configs import demo
    from m2l_jax.interface.settings import build
    from m2l_jax.training.config import TrainingConfig

    config = demo.get_config()
    config.init_from = ''
    config.model.update(**_TINY, spectrogram={'window': 256, 'hop': 64})
    config.data.path = str(music)
    return build(TrainingConfig, config)


def _write_music(folder: pathlib.Path) -> pathlib.Path:
    """Writes three files of noise-like chords: mono, stereo, and at another rate."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, rate, channels) in enumerate(
        (('mono.wav', 44_100, 1), ('stereo.wav', 44_100, 2), ('deep/other.flac', 48_000, 2))
    ):
        random = np.random.default_rng(seed)
        time = np.arange(int(2.3 * rate))[:, None] / rate
        signal = 0.01 * random.standard_normal((len(time), channels))
        for _ in range(12):
            pitch, phase = random.uniform(80, 4000), random.uniform(0, 6, channels)
            signal += 0.05 * np.sin(2 * np.pi * pitch * time + phase)
        (folder / name).parent.mkdir(exist_ok=True)
        samples = np.round(32768 * signal).astype(np.int16)
        soundfile.write(folder / name, samples, rate, subtype='PCM_16')
    return folder


def _write_model(path: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes a tiny model whose weights depend on their names and the seed alone."""
    import jax

    from m2l_jax import Music2Latent
    from m2l_jax.torch_weights.conversion import save_torch_model

    config = _tiny_config()

    def fill(keys: Any, leaf: Any) -> np.ndarray:
        random = np.random.default_rng([seed, zlib.crc32(_path(keys).encode())])
        values = random.standard_normal(leaf.shape, np.float32)
        return values / np.float32(max(1, math.prod(leaf.shape[:-1])) ** 0.5)

    shapes = jax.eval_shape(Music2Latent(config).init_params, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(fill, shapes)
    save_torch_model(path, config, params)
    return path


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    import jax

    return jax.tree_util.tree_leaves_with_path(tree)


def _path(keys: Any) -> str:
    import jax

    return jax.tree_util.keystr(keys, simple=True, separator='/')


def _sha256(array: Any) -> str:
    return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()


def _summary(array: Any) -> list[float]:
    """Mean size, and some of the values."""
    values = np.asarray(array, np.float64).ravel()
    chosen = values[:: max(1, len(values) // 4)]
    return [float(f'{value:.6g}') for value in (np.mean(np.abs(values)), *chosen)]


def main() -> int:
    """Computes the chosen sections, and compares them or writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', default=','.join(SECTIONS), help=f'of {", ".join(SECTIONS)}')
    parser.add_argument('--write', action='store_true', help='replace the stored values')
    arguments = parser.parse_args()
    chosen = arguments.only.split(',')
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f'no section {", ".join(sorted(unknown))}: choose of {", ".join(SECTIONS)}')
    stored = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    changed = 0
    for name in chosen:
        found = json.loads(json.dumps(SECTIONS[name]()))
        lines = differences(stored.get(name, {}), found, name)
        print(f'{name}: {len(lines) or "no"} differences', flush=True)
        if arguments.write:
            stored[name] = found
            continue
        changed += len(lines)
        for line in lines:
            print('  ' + line)
    if arguments.write:
        ordered = {name: stored[name] for name in SECTIONS if name in stored}
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        in_lines = re.compile(r'\[[^][{}]*\]')
        text = in_lines.sub(lambda found: ' '.join(found[0].split()), text)
        GOLDENS.write_text(text + '\n')
    return 1 if changed else 0


if __name__ == '__main__':
    sys.exit(main())
