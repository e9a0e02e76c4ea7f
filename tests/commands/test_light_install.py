"""Commands where the packages that training needs are missing."""

import pytest
import soundfile

from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.commands.test_commands import assert_told, run_python
from tests.conftest import make_music
from tests.torch_weights.test_conversion import random_params

MISSING = ('array_record', 'tensorboard', 'tensorboardX', 'tensorflow', 'tensorflow_datasets')
CODE = f"""\
import runpy, sys
sys.modules.update(dict.fromkeys({MISSING!r}))  # their import fails
sys.argv[0] = 'm2l'
try:
    runpy.run_module('m2l_jax', run_name='__main__', alter_sys=True)
finally:
    assert not {{'ray', 'torch'}} & set(sys.modules)
"""


def run_light(*arguments):
    return run_python('-c', CODE, *arguments)


def test_encoding_decoding_evaluation_and_sharing_do_without(tmp_path):
    save_torch_model(tmp_path / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    soundfile.write(tmp_path / 'a.wav', make_music(0.9).T, 44_100)
    model = f'--checkpoint={tmp_path / "model.safetensors"}'
    latents, audio = tmp_path / 'latents', tmp_path / 'audio'
    flags = ('--seconds=0.4', '--media=1', '--untrained=0', '--nolatent_gain', '--processes=0')
    for arguments in (
        ('encode', model, f'--input={tmp_path / "a.wav"}', f'--output={latents}'),
        ('decode', model, f'--input={latents}', f'--output={audio}'),
        ('evaluate', model, f'--input={tmp_path}/*.wav', f'--output={tmp_path / "out"}', *flags),
        ('push', model, '--to=user/model', f'--dry_run={tmp_path / "card"}'),
    ):
        result = run_light(*arguments)
        assert result.returncode == 0, result.stderr
    assert list(audio.rglob('a*.wav'))
    assert list(tmp_path.glob('out/00_a_00.wav'))


@pytest.mark.parametrize(
    ('arguments', 'package'),
    [
        (('train', '--config=demo', '--workdir=run'), 'tensorboard'),
        (('plot', '--workdir=run', '--output=out'), 'tensorboard'),
        (('prepare', '--input=m2l_jax/assets/voice', '--output=OUT'), 'tensorflow_datasets'),
    ],
)
def test_other_commands_name_the_extra(tmp_path, arguments, package):
    message = f"error: this needs {package}, which is missing: pip install 'm2l-jax[train]'"
    arguments = (each.replace('OUT', str(tmp_path / 'out')) for each in arguments)
    assert_told(run_light(*arguments), message)
