"""Every command as a user meets it: in a process of its own."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile

from m2l_jax.corpus.store import read_latents
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.conftest import make_music, on_one_device
from tests.torch_weights.test_conversion import random_params
from tests.waiting import HANG_SECONDS

REPOSITORY = pathlib.Path(__file__).parents[2]


def run(module, *flags, **environment):
    return run_python('-m', f'm2l_jax.{module}', *flags, **environment)


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**on_one_device(), **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def assert_told(result, message):
    assert result.returncode == 1
    assert message in result.stderr
    assert 'Traceback' not in result.stderr


def test_importing_the_package_loads_nothing_heavy():
    code = (
        'import sys, m2l_jax; '
        'print([m for m in ("jax", "tensorflow", "torch", "matplotlib") if m in sys.modules]); '
        'm2l_jax.Music2Latent, m2l_jax.EncoderDecoder; '
        'print([m for m in ("tensorflow", "torch", "matplotlib") if m in sys.modules])'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout == '[]\n[]\n'


DEMO_WITHOUT_MODELS = """
import pathlib
from m2l_jax import demo
from m2l_jax.codec import weights
from m2l_jax.interface import command

weights._FOLDER = pathlib.Path('nowhere')
command.run(demo.main)
"""


def test_demo_reconstructs_fine_tunes_and_summarises(tmp_path):
    """A model that the package comes without, and then the one that came of that."""
    flags = (*tiny.FLAGS, '--config.init_from=small', f'--output={tmp_path}')
    result = run_python('-c', DEMO_WITHOUT_MODELS, *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('Model: untrained. Expect noise: this version comes without a')
    assert 'step 3/3: loss' in result.stderr
    assert soundfile.info(tmp_path / 'model' / 'greensleeves.wav').channels == 2
    assert {path.name for path in (tmp_path / 'model').iterdir()} == {
        f'{clip}{suffix}'
        for clip in ('greensleeves', 'au_clair_de_la_lune')
        for suffix in ('.original.wav', '.wav', '.png')
    }
    assert (tmp_path / 'fine-tuned' / 'greensleeves.png').exists()

    flags = (*tiny.FLAGS, f'--config.init_from={tmp_path / "run"}', f'--output={tmp_path / "more"}')
    result = run('demo', *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f'Model: {tmp_path / "run"}.')
    first, second = (
        json.loads((folder / 'summary.json').read_text())['fine_tuned']
        for folder in (tmp_path, tmp_path / 'more')
    )
    assert second['before'] == pytest.approx(first['after'])
    assert second['before'] != pytest.approx(first['before'])
    names = {'si_sdr', 'lsd', 'mr_stft', 'mel', 'latent_gain', 'latent_gain_magnitude'}
    assert names == set(second['after'])

    result = run('demo', *flags)
    assert_told(result, f'error: {tmp_path / "more" / "run"} holds a finished training run: remove')
    assert not result.stdout
    # Initial weights of another size are refused before anything is reconstructed.
    other = ('--config.model.base_channels=8', f'--output={tmp_path / "other"}')
    assert_told(run('demo', *flags, *other), 'run is another model (config.model.base_channels: 4')
    assert not (tmp_path / 'other').exists()

    curves = tmp_path / 'curves'
    result = run('plot', f'--workdir={tmp_path / "run"}', f'--output={curves}')
    assert result.returncode == 0, result.stderr
    loss = json.loads((curves / 'curves.json').read_text())['loss']
    assert loss['step'] == [1, 2, 3]
    assert (curves / 'curves.png').exists()
    assert_told(run('plot', f'--workdir={curves}', f'--output={curves}'), 'holds no curves')

    # The checkpoint reconstructs another file, of another rate.
    soundfile.write(tmp_path / 'a.wav', make_music(1, 22_050).T, 22_050)
    flags = (f'--checkpoint={tmp_path / "run"}', f'--output={tmp_path / "out"}')
    result = run('reconstruct', f'--input={tmp_path / "a.wav"}', *flags)
    assert result.returncode == 0, result.stderr
    assert 'log-spectral distance' in result.stdout
    assert soundfile.info(tmp_path / 'out' / 'a.wav').frames == 44_100
    assert (tmp_path / 'out' / 'a.png').exists()
    result = run('reconstruct', f'--input={tmp_path / "none.wav"}', *flags)
    assert_told(result, 'none.wav does not exist or is not a file')


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (
            ['--config.data.bach_size=3'],
            "error: config.data has no field 'bach_size'; did you mean 'batch_size'?",
        ),
        (
            ['--config.optimizer.momentum=0.9'],
            'error: config.optimizer.momentum is for config.optimizer.name=muon, not for radam: ',
        ),
        (['--config.modle.dtype=x'], 'error: unknown config field \'modle\'. Did you mean "model"'),
        (
            ['--config.optimizer.name.x=y'],
            'error: a field without parts is given one: look at --con',
        ),
        (
            ['--config.optimizer[name]=muon'],
            'error: --config.optimizer[name] is no field of a conf',
        ),
        (
            ['--config.data.batch_size=x'],
            'error: --config.data.batch_size=x: must be a whole number',
        ),
        (['--minutes=x'], 'error: --minutes=x: must be a number'),
        (['--clips=3'], "error: Unknown command line flag 'clips'"),
        (['--workdir'], 'error: Missing value for flag --workdir'),
        (['--config.data.path=/nowhere'], 'error: /nowhere does not exist'),
        (['--config=configs/demo.py:x'], 'error: this --config takes no :argument'),
        (['--config=configs/tpu_v4.py:v5e-4'], "error: slice 'v5e-4' is not one of v4"),
        (
            ['--config=configs/none.py'],
            'error: --config=configs/none.py cannot be read (No such file',
        ),
        (['--config=variants'], 'error: --config=variants cannot be read (No such'),
        (['extra'], "error: unexpected argument 'extra'"),
        (['--config.model.dtype=int3'], "error: model.dtype='int3' must be one of"),
    ],
)
def test_train_tells_a_users_mistake_in_a_line(tmp_path, flags, message):
    result = run('train', '--config=configs/demo.py', f'--workdir={tmp_path / "run"}', *flags)
    assert_told(result, message)
    assert not (tmp_path / 'run').exists()


def test_flags_that_are_missing_are_told_in_a_line():
    message = 'error: --input, --output are missing: --helpshort lists all flags'
    assert_told(run('reconstruct', '--checkpoint=small'), message)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (
            ['--topology=v9-8'],
            'error: --topology=v9-8 is not known: use one of v4-8 to v4-1024, v5e-4 to',
        ),
        (['--config=configs/tpu_v4.py:v4', '--topology=v4-8'], "error: slice 'v4' is not one"),
        (
            ['--config.optimizer.momentum=0.9', '--topology=v4-8'],
            'error: config.optimizer.momentum is for config.optimizer.name=muon, not for radam: ',
        ),
    ],
)
def test_compile_tells_a_users_mistake_in_a_line(flags, message):
    assert_told(run('compile', '--config=configs/demo.py', *flags), message)


def test_a_missing_checkpoint_is_told_with_the_models_that_there_are(tmp_path):
    result = run('evaluate', '--checkpoint=smal', f'--output={tmp_path / "out"}')
    assert_told(result, 'error: smal does not exist: pass the --workdir of a training run')
    assert 'small' in result.stderr


def test_reconstruct_tells_a_missing_checkpoint_in_a_line(tmp_path):
    output = tmp_path / 'out'
    result = run('reconstruct', f'--checkpoint={tmp_path}', '--input=a.wav', f'--output={output}')
    assert_told(result, 'holds no checkpoints: pass the --workdir of a training run')
    assert not output.exists()


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """A small model as .safetensors, and the same converted to a folder by the command."""
    folder = tmp_path_factory.mktemp('converted')
    save_torch_model(folder / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    result = run('convert', f'--from={folder / "model.safetensors"}', f'--to={folder / "orbax"}')
    assert result.returncode == 0, result.stderr
    assert 'parameters' in result.stdout
    return folder


def test_evaluate_reports_each_piece_and_the_untrained_model(tmp_path):
    save_torch_model(tmp_path / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    soundfile.write(tmp_path / 'a.wav', make_music(0.9).T, 44_100)
    flags = (f'--checkpoint={tmp_path / "model.safetensors"}', f'--input={tmp_path / "a.wav"}')
    flags += ('--seconds=0.4', '--media=1', '--seed=3', f'--output={tmp_path / "out"}')
    result = run('evaluate', *flags)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    model, untrained, noise = report['systems'].values()
    assert list(report['systems'])[1:] == ['untrained', 'shaped noise']
    assert list(model['clips']) == ['00_a_00', '00_a_01']
    for name in ('lsd', 'mel'):
        figures = [row[name] for row in model['clips'].values()]
        assert model['mean'][name] == pytest.approx(sum(figures) / 2)
    assert untrained['mean']['lsd'] != model['mean']['lsd']
    assert noise['mean'].keys() == model['mean'].keys()
    assert 0.1 < noise['mean']['mel'] < untrained['mean']['mel']
    assert model['by_noise_level']['latent_gain'] > 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith('2 pieces of 0.4 s, seed 3 ')
    mel = next(line for line in lines if line.startswith('mel distance (lower)'))
    assert f'{noise["mean"]["mel"]:.3f} [' in mel
    gain = next(line for line in lines if line.startswith('latent gain (higher'))
    assert gain.endswith(f'{model["by_noise_level"]["latent_gain"]:.4g}')
    assert report['seeds'] == [3]
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    pieces = {'00_a_00.wav', '00_a_00.original.wav', '00_a_00.png'}
    assert written == {'report.json', 'clips.csv', 'index.html', *pieces}
    assert 'measuring 2 pieces with untrained' in result.stderr
    assert 'measuring errors at 8 noise levels' in result.stderr
    assert_told(run('evaluate', *flags, '--seconds=0.01'), 'pieces of 0.01 s are too short')


def test_evaluate_against_the_released_weights_tells_where_there_is_no_network(tmp_path):
    save_torch_model(tmp_path / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    offline = {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path), 'M2L_JAX_CACHE': str(tmp_path)}
    flags = ('--against=released', f'--output={tmp_path / "out"}')
    result = run('evaluate', f'--checkpoint={tmp_path / "model.safetensors"}', *flags, **offline)
    place = 'hf://SonyCSLParis/music2latent/music2latent.pt'
    message = f'error: {place} is not in the cache and cannot be fetched (HF_HUB_OFFLINE is set)'
    assert_told(result, message)
    assert result.stderr.count('error: ') == 1
    assert not (tmp_path / 'out').exists()


def test_evaluate_leaves_no_folder_of_a_diverged_model(tmp_path):
    params = jax.tree.map(lambda leaf: leaf * np.nan, random_params(tiny.MODEL))
    save_torch_model(tmp_path / 'model.safetensors', tiny.MODEL, params)
    soundfile.write(tmp_path / 'a.wav', make_music(0.4).T, 44_100)
    flags = (f'--checkpoint={tmp_path / "model.safetensors"}', f'--input={tmp_path / "a.wav"}')
    result = run('evaluate', *flags, '--seconds=0.4', f'--output={tmp_path / "deep" / "out"}')
    assert_told(result, 'the model gives NaN: its training diverged')
    assert not (tmp_path / 'deep').exists()


def test_convert_there_and_back_is_exact(converted, tmp_path):
    result = run('convert', f'--from={converted / "orbax"}', f'--to={tmp_path / "b.safetensors"}')
    assert result.returncode == 0, result.stderr
    one, two = converted / 'model.safetensors', tmp_path / 'b.safetensors'
    assert one.read_bytes() == two.read_bytes()
    result = run('convert', f'--from={one}', f'--to={two}')
    assert_told(result, 'b.safetensors exists already: remove it or choose another name')
    result = run('convert', f'--from={one}', f'--to={tmp_path / "c"}', '--storage=float16')
    assert_told(result, 'c: --storage and --most_megabytes are for .pt or .safetensors files')


@pytest.mark.parametrize('kind', ['npz', 'npy'])
def test_encode_and_decode_a_folder(converted, tmp_path, kind):
    music = tmp_path / 'music' / 'deep'
    music.mkdir(parents=True)
    soundfile.write(music / 'a.wav', make_music(0.5, 48_000, channels=2).T, 48_000)
    soundfile.write(music / 'b.flac', make_music(0.5).T, 44_100)
    (music / 'broken.ogg').write_bytes(b'nothing')
    flags = (f'--checkpoint={converted / "orbax"}', f'--output={tmp_path / "out"}')
    result = run('encode', f'--input={tmp_path / "music"}', '--pad', f'--format={kind}', *flags)
    assert result.returncode == 0, result.stderr
    assert 'skipped ' in result.stderr
    assert 'broken.ogg cannot be read as audio' in result.stderr
    assert result.stdout.startswith('2 files, 1 s of audio in ')
    assert result.stdout.endswith(' 1 failures (failures.csv)\n')
    stored = read_latents(tmp_path / 'out' / 'deep' / f'a.{kind}')
    assert (stored.samples, stored.sample_rate, stored.scale) == (22_050, 44_100, 0.06)
    assert stored.latents.shape[:2] == (2, tiny.MODEL.latent_channels)

    result = run(
        'decode', f'--input={tmp_path / "out"}', *flags[:1], f'--output={tmp_path / "wav"}'
    )
    assert result.returncode == 0, result.stderr
    info = soundfile.info(tmp_path / 'wav' / 'deep' / 'a.wav')
    assert (info.frames, info.channels, info.samplerate) == (22_050, 2, 44_100)

    save_torch_model(tmp_path / 'other.safetensors', tiny.MODEL, random_params(tiny.MODEL, seed=1))
    flags = (f'--checkpoint={tmp_path / "other.safetensors"}', f'--output={tmp_path / "no"}')
    result = run('decode', f'--input={tmp_path / "out" / "deep" / f"b.{kind}"}', *flags)
    assert_told(result, 'pass the one that it was encoded with')
    assert not (tmp_path / 'no').exists()


def test_decode_takes_bare_arrays(converted, tmp_path):
    (tmp_path / 'in').mkdir()
    batch = np.random.default_rng(0).standard_normal((2, 1, tiny.MODEL.latent_channels, 4))
    np.save(tmp_path / 'in' / 'made.npy', batch)
    flags = (f'--checkpoint={converted / "model.safetensors"}', '--sample_rate=32000')
    wav = f'--output={tmp_path / "wav"}'
    result = run('decode', f'--input={tmp_path / "in"}', '--scale=0.12', wav, *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count('made.npy does not say its model') == 1
    for number in range(2):
        info = soundfile.info(tmp_path / 'wav' / f'made-{number}.wav')
        assert (info.channels, info.samplerate) == (1, 32_000)
    result = run('decode', f'--input={tmp_path / "in"}', wav, *flags)
    assert_told(result, 'settings.scale: 0.12 -> None')

    np.save(tmp_path / 'made.npy', batch.swapaxes(2, 3))
    flags = (*flags, f'--output={tmp_path / "no"}')
    result = run('decode', f'--input={tmp_path / "made.npy"}', *flags)
    assert_told(result, 'made.npy has shape (2, 1, 4, ')
    assert not (tmp_path / 'no').exists()


def test_compare_wants_one_model():
    assert_told(run('compare'), 'pass either --torch-checkpoint=FILE or --random')
    result = run('compare', '--torch-checkpoint=none.pt')
    assert_told(result, 'none.pt does not exist or is not a file')


def test_prepare_names_what_it_skips(music_folder, tmp_path):
    (music_folder / 'text.wav').write_text('not audio')
    flags = (f'--input={music_folder}/*', f'--output={tmp_path / "set"}', '--segment_seconds=1')
    result = run('prepare', *flags, '--workers=1')
    assert result.returncode == 0, result.stderr
    assert 'text.wav cannot be read as audio' in result.stderr
    assert '33 of 33 segments are in 1 shards' in result.stderr
    assert result.stdout.startswith('2 files, ')
    assert result.stdout.endswith(' 1 failures (failures.csv)\n')
    checked = run('prepare', '--verify', f'--output={tmp_path / "set"}')
    assert checked.stdout.endswith('of 2 inputs are as they were written; 1 inputs failed\n')
    assert_told(run('prepare', *flags, '--min_rms=0.1'), 'settings.min_rms: 0.001 -> 0.1')
