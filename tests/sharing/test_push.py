"""Models pushed to a stand-in of the Hugging Face Hub, and loaded from it elsewhere."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard, close_session, constants

import m2l_jax
from m2l_jax.checkpoint.store import save_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.quality import evaluate
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig
from m2l_jax.sharing.history import read_history
from m2l_jax.torch_weights.conversion import save_torch_model
from m2l_jax.training.loop import train_and_evaluate
from tests.commands import tiny
from tests.conftest import make_music
from tests.hub_stand_in import TOKEN
from tests.small_training import make_config
from tests.torch_weights.test_conversion import random_params

push = m2l_jax.push_to_hub


@pytest.fixture(scope='module')
def params():
    return random_params(tiny.MODEL)


@pytest.fixture(scope='module')
def model(tmp_path_factory, params):
    """A model alone."""
    path = tmp_path_factory.mktemp('model') / 'a.safetensors'
    save_torch_model(path, tiny.MODEL, params)
    return path


@pytest.fixture(scope='module')
def run(music, tmp_path_factory):
    """A training run of a few steps."""
    workdir = tmp_path_factory.mktemp('secret') / 'run'
    train_and_evaluate(make_config(music), workdir)
    return workdir


@pytest.fixture
def logged_in(stand_in, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    return stand_in


def card_of(hub, name='user/model'):
    return ModelCard(hub.repositories[name].files['README.md'].decode())


def test_a_run_is_the_same_elsewhere(logged_in, run, tmp_path, monkeypatch):
    url = push(run, 'user/model', licence='cc-by-4.0', data='Two short files.', message='First')
    repository = logged_in.repositories['user/model']
    assert not repository.private
    assert url == f'{logged_in.url}/user/model/commit/{repository.branches["main"]}'
    assert len(repository.commits) == 2  # that of its creation, and one
    names = {'model.safetensors', 'README.md', 'curves.png', '.gitattributes'}
    assert set(repository.files) == names
    assert repository.files['curves.png'].startswith(b'\x89PNG')
    monkeypatch.delenv('HF_TOKEN')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'fresh'))
    original, fetched = EncoderDecoder(run), EncoderDecoder.from_pretrained('user/model')
    assert fetched.config == original.config
    assert fetched.model_id == original.model_id
    audio = make_music(1)
    latents = fetched.encode(audio)
    np.testing.assert_array_equal(latents, original.encode(audio))
    np.testing.assert_array_equal(fetched.decode(latents), original.decode(latents))


def test_the_card_says_how_a_run_went(logged_in, run):
    push(run, 'user/model', licence='cc-by-4.0', data='Two short files.')
    card, config = card_of(logged_in), make_config('')
    fields = card.data.to_dict()
    assert fields['license'] == 'cc-by-4.0'
    assert fields['library_name'] == 'm2l_jax'
    assert fields['pipeline_tag'] == 'audio-to-audio'
    assert 'music2latent' in fields['tags']
    assert not {'model-index', 'model_name', 'base_model', 'eval_results'} & set(fields)
    steps, batch = config.train.steps, config.data.batch_size
    codec = EncoderDecoder(run)
    samples = codec.config.spectrogram.samples(config.data.crop_frames)
    rate, width = codec.config.spectrogram.sample_rate, codec.config.latent_channels
    parameters = sum(leaf.size for leaf in jax.tree.leaves(codec.params))
    for line in (
        '# model',
        f'| parameters | {parameters:,}, stored as float32 |',
        f'| latents | {rate / codec.samples_per_latent:.4g} vectors a second and channel, of '
        f'{width} numbers each |',
        f'| compression | {codec.samples_per_latent / width:.4g} samples of audio for each '
        'number |',
        '| data | Two short files. |',
        '| started from | random parameters |',
        '| licence of the weights | cc-by-4.0 |',
        f'| steps | {steps} of {steps} |',
        f'| batch | {batch} crops of {samples / rate:.3g} s |',
        f'| audio | {steps * batch * samples / rate / 3600:.3g} hours of crops |',
        f'| `optimizer.learning_rate` | `{config.optimizer.learning_rate}` |',
        "codec = EncoderDecoder.from_pretrained('user/model')",
        '![Curves of the training](curves.png)',
    ):
        assert line in card.text.splitlines(), line
    assert '| time | ' in card.text
    assert 'secret' not in card.text  # names of folders
    assert 'data.path' not in card.text
    assert 'load_path_inference' not in card.text  # the PyTorch package has another size


def test_what_nobody_says_is_not_stated(logged_in, model):
    push(model, 'hf://user/model')
    card = card_of(logged_in)
    assert 'license' not in card.data.to_dict()
    for name in ('data', 'licence of the weights', 'training'):
        assert f'| {name} | not stated |' in card.text
    assert set(logged_in.repositories['user/model'].files) == {
        '.gitattributes',
        'README.md',
        'model.safetensors',
    }


def test_the_card_has_a_reports_figures(logged_in, model, tmp_path):
    import soundfile

    soundfile.write(tmp_path / 'a.wav', make_music(0.9).T, 44_100)
    flags = {'seconds': 0.4, 'media': 0, 'processes': 0, 'embeddings': (), 'untrained': 1}
    report = evaluate(str(model), str(tmp_path / 'a.wav'), tmp_path / 'out', **flags)
    push(model, 'user/model', evaluation=tmp_path / 'out' / 'report.json', storage='float16')
    card = card_of(logged_in)
    mean = report['systems'][str(model)]['mean']
    low, high = report['systems'][str(model)]['interval']['mel']
    heading = report['metrics']['mel']
    assert f'| {heading} | {mean["mel"]:.3f} [{low:.3f}, {high:.3f}] |' in card.text
    assert '|  | this model | untrained | shaped noise |' in card.text
    assert str(model) not in card.text
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results['mel'].metric_value == mean['mel']
    assert results['mel'].dataset_name == '2 pieces of 0.4 s'
    assert card.data.to_dict()['model-index'][0]['name'] == 'model'
    assert ', stored as float16 |' in card.text
    path = tmp_path / 'out' / 'report.json'
    changed = json.loads(path.read_text())
    changed['systems'][str(model)]['mean']['mel'] = None  # not finite
    path.write_text(json.dumps(changed), 'utf-8-sig')  # as some editors save it
    push(model, 'user/model', evaluation=path, card={})
    assert set(results) - {each.metric_type for each in card_of(logged_in).data.eval_results} == {
        'mel'
    }
    with pytest.raises(InputError, match=r'report\.json measured other models than this one: eval'):
        push('small', 'user/other', evaluation=tmp_path / 'out' / 'report.json')
    assert set(logged_in.repositories) == {'user/model'}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, r'report\.json cannot be read \(No such file or directory\): pass a report\.json'),
        ('{', r'report\.json is no report\.json of m2l_jax\.evaluate'),
        ('{"systems": [1]}', r'report\.json is no report\.json of m2l_jax\.evaluate'),
        ('[' * 10**5, r'report\.json is no report\.json of m2l_jax\.evaluate'),
    ],
)
def test_another_file_is_no_report(model, tmp_path, text, message):
    path = tmp_path / 'report.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        push(model, 'user/model', evaluation=path, dry_run=tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_fields_and_texts_can_be_added(model, tmp_path):
    def write(number, card):
        folder = tmp_path / str(number)
        assert push(model, 'user/model', card=card, dry_run=folder) == str(folder)
        return ModelCard.load(folder / 'README.md')

    assert write(0, {'license': 'mit', 'language': 'fr'}).data.to_dict()['language'] == 'fr'
    card = write(1, '---\nlicense: mit\ndatasets: [user/data]\n---\n\nFor bells | only.\n')
    assert card.data.license == 'mit'
    assert card.data.datasets == ['user/data']
    assert 'For bells | only.' in card.text.splitlines()
    assert '| licence of the weights | mit |' in card.text
    assert write(5, '\ufeff---\nlicense: mit\n---\n\nA text.').data.license == 'mit'
    card = write(6, {'license': ['mit', 'apache-2.0']})
    assert card.data.license == ['mit', 'apache-2.0']
    assert '| licence of the weights | mit, apache-2.0 |' in card.text
    for bad, message in (
        ({'license': 3}, 'the licence 3 of the card must be a text'),
        (3, 'card=3 must be fields or a text'),
    ):
        with pytest.raises(InputError, match=message):
            write(7, bad)
    with pytest.raises(InputError, match=r'has license: mit, but the licence is cc-by-4\.0: pass'):
        push(model, 'user/model', card={'license': 'mit'}, licence='cc-by-4.0')
    with pytest.raises(InputError, match='data=3 must be a text'):
        push(model, 'user/model', data=3)
    push(model, 'user/model', data='<b> | c', dry_run=tmp_path / '8')
    text = (tmp_path / '8' / 'README.md').read_text()
    assert '| data | &lt;b> \\| c |' in text
    assert write(2, 'A line.').data.to_dict() == write(3, None).data.to_dict()
    for bad in ('---\n- a\n---\n', '---\na: [\n---\n'):
        with pytest.raises(InputError, match='the fields of the card cannot be read: '):
            write(4, bad)


def test_a_run_beside_other_weights_is_still_a_run(run, model, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    shutil.copyfile(model, folder / 'model.safetensors')
    push(folder, 'user/model', dry_run=tmp_path / 'out')
    assert EncoderDecoder(tmp_path / 'out').model_id == EncoderDecoder(run).model_id
    assert '| steps | ' in (tmp_path / 'out' / 'README.md').read_text()


def test_a_dry_run_writes_all_files_and_asks_nobody(stand_in, run, tmp_path):
    out = tmp_path / 'out'
    push(run, 'user/model', dry_run=out)
    assert {path.name for path in out.iterdir()} == {'model.safetensors', 'README.md', 'curves.png'}
    assert not stand_in.asked
    assert EncoderDecoder.from_pretrained(out).model_id == EncoderDecoder(run).model_id
    with pytest.raises(InputError, match=r'out holds model\.safetensors already: choose another'):
        push(run, 'user/model', dry_run=out)


def test_a_readme_that_is_there_is_kept_unless_a_card_is_passed(logged_in, model, caplog):
    repository = logged_in.add('user/model', README_md=b'# Mine')
    push(model, 'user/model')
    assert repository.files['README.md'] == b'# Mine'
    assert 'model.safetensors' in repository.files
    assert '/user/model has a README.md, which is kept as it is: pass card={} or' in caplog.text
    repository = logged_in.add('user/model', README_md=b'# Mine')
    facts = {'licence': 'mit', 'data': 'Bells.'}
    with pytest.raises(InputError, match=r'would be kept without licence, data: pass card=\{\} or'):
        push(model, 'user/model', **facts)
    assert set(repository.files) == {'README.md'}
    push(model, 'user/model', card={}, **facts)
    assert '| data | Bells. |' in card_of(logged_in).text
    push(model, 'user/model')
    assert '| data | Bells. |' in card_of(logged_in).text


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin', 'a\x1b'])
def test_another_model_is_not_written_over(logged_in, model, name):
    repository = logged_in.add('user/model', README_md=b'---\nlibrary_name: transformers\n---\n')
    repository.commit({name: b'0', '.gitattributes': b''})
    with pytest.raises(
        InputError, match=r'/user/model holds .*, and no README\.md with library_name:'
    ) as caught:
        push(model, 'user/model')
    assert str(caught.value).isprintable()
    assert repository.files[name] == b'0'
    push(model, 'user/model', card={})
    assert EncoderDecoder('hf://user/model').model_id == EncoderDecoder(model).model_id


def test_a_known_licence_is_filled_in(logged_in, model, tmp_path):
    logged_in.add('SonyCSLParis/music2latent', a_safetensors=model.read_bytes())
    released = 'hf://SonyCSLParis/music2latent'
    for extra in ({'licence': 'mit'}, {'card': {'license': 'mit'}}):
        with pytest.raises(InputError, match=r'cc-by-nc-4\.0'):
            push(released, 'user/model', dry_run=tmp_path / 'out', **extra)
    push(released, 'user/model', dry_run=tmp_path / 'out')
    assert ModelCard.load(tmp_path / 'out' / 'README.md').data.license == 'cc-by-nc-4.0'


def test_a_branch_can_be_pushed_to(logged_in, model, run):
    push(model, 'user/model')
    push(run, 'user/model', revision='second', card={})
    push(run, 'user/model@second', card={})
    repository = logged_in.repositories['user/model']
    second = repository.commits[repository.branches['second']]
    assert "from_pretrained('user/model', revision='second')" in second['README.md'].decode()
    assert EncoderDecoder('hf://user/model').model_id == EncoderDecoder(model).model_id
    assert EncoderDecoder('hf://user/model@second').model_id == EncoderDecoder(run).model_id


def test_a_private_repository_stays_so(logged_in, model, monkeypatch):
    push(model, 'user/model', private=True)
    assert logged_in.repositories['user/model'].private
    logged_in.add('user/public')
    with pytest.raises(
        InputError, match='/user/public is public: make it private there, or choose'
    ):
        push(model, 'user/public', private=True)
    monkeypatch.delenv('HF_TOKEN')
    with pytest.raises(InputError, match='hf://user/model does not exist or is private'):
        EncoderDecoder('hf://user/model')


def test_the_full_size_says_how_the_pytorch_package_loads_it(monkeypatch, model, tmp_path):
    from m2l_jax.sharing import card

    subject = card.Subject(card.Place('user/model'), ModelConfig(), 1, 'float32', None, None)
    text = card.write_card(subject, None)
    assert 'python -m m2l_jax.convert --from=hf://user/model --to=model.pt' in text
    assert "EncoderDecoder(load_path_inference='model.pt')" in text
    subject = dataclasses.replace(subject, config=tiny.MODEL)
    assert 'load_path_inference' not in card.write_card(subject, None)


def test_a_model_that_is_no_good_is_never_uploaded(logged_in, tmp_path, params):
    bad = jax.tree.map(np.copy, params)
    bad['encoder']['gain'][0] = np.nan
    save_model(tmp_path / 'bad', tiny.MODEL, bad)
    with pytest.raises(
        InputError, match='bad holds numbers that are not finite: its training dive'
    ):
        push(tmp_path / 'bad', 'user/model')
    config = dataclasses.replace(tiny.MODEL, encoder_blocks=2)
    other = random_params(config)
    save_model(tmp_path / 'other', config, other)
    with pytest.raises(InputError, match='as many blocks a level in its decoder as in its encoder'):
        push(tmp_path / 'other', 'user/model')
    with pytest.raises(InputError, match='none does not exist'):
        push(tmp_path / 'none', 'user/model')
    assert not logged_in.asked


@pytest.mark.parametrize(
    ('repository', 'refused', 'message'),
    [
        ('model', {}, 'hf://model is no address of a model'),
        ('user/model/a.pt', {}, r'user/model/a\.pt must be user/model: pass a branch as revision'),
        ('us er/model', {}, 'hf://us er/model is no name of a repository'),
        (
            'user/model',
            {'POST /api/repos': 403},
            'your token gives no right to this in hf://user/mo',
        ),
        (
            'user/model',
            {'POST /api/repos': 500},
            r'the upload to hf://user/model failed \(.*500',
        ),
        (
            'user/model',
            {'PUT /lfs': 400},
            r'the upload to hf://user/model failed \(.*: run this',
        ),
        ('user/model', {'/commit/main': 412}, r'the upload to hf://user/model failed \(.*412'),
    ],
)
def test_refusals_are_told_in_a_line(logged_in, model, repository, refused, message):
    logged_in.refused = refused
    with pytest.raises(InputError, match=message) as caught:
        push(model, repository)
    assert '\n' not in str(caught.value)
    assert TOKEN not in str(caught.value)
    for repository in logged_in.repositories.values():
        assert set(repository.files) == {'.gitattributes'}  # nothing half pushed


@pytest.mark.parametrize(('offline', 'why'), [(True, 'HF_HUB_OFFLINE is set'), (False, '.*efused')])
def test_without_a_connection_a_line_says_so(logged_in, model, monkeypatch, offline, why):
    logged_in.__exit__()
    close_session()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', offline)
    message = rf'the upload to hf://user/model failed \({why}.*\): run this again'
    with pytest.raises(InputError, match=message):
        push(model, 'user/model')


def test_without_a_login_a_line_says_so(stand_in, model):
    with pytest.raises(InputError, match='the Hub does not know who you are: log in with `hf auth'):
        push(model, 'user/model')
    assert not stand_in.repositories


def test_a_card_that_the_hub_refuses_makes_no_repository(logged_in, model):
    with pytest.raises(InputError, match=r'the Hub refuses the card: .*"license.* must be one of'):
        push(model, 'user/model', licence='nonsense')
    assert not logged_in.repositories


def test_the_start_of_a_training_is_named_unless_it_is_private(run):
    history = read_history(run)
    for source, origin, base in (
        ('', 'random parameters', None),
        ('small', 'small, the model that m2l_jax comes with', None),
        ('/home/me/secret', 'another model', None),
        ('hf://user/model@v1', 'user/model', 'user/model'),
    ):
        settings = dataclasses.replace(history.settings, init_from=source)
        changed = dataclasses.replace(history, settings=settings)
        assert (changed.origin, changed.base) == (origin, base)


def test_hours_are_those_of_the_steps(run):
    history = read_history(run)
    changed = dataclasses.replace(history, curves={'steps_per_second': {2: 0.5, 6: 2.0}})
    assert changed.hours == pytest.approx((2 / 0.5 + 4 / 2.0) / 3600)
    assert dataclasses.replace(history, curves={}).hours is None
    first = read_history(run / 'checkpoints' / '3')
    assert first.steps == 3
    assert list(first.curves['loss']) == [2]


def test_without_tensorboard_the_card_has_no_curves(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'm2l_jax.training.curves', None)
    push(run, 'user/model', dry_run=tmp_path / 'out')
    assert not (tmp_path / 'out' / 'curves.png').exists()
    text = (tmp_path / 'out' / 'README.md').read_text()
    assert 'curves.png' not in text
    assert '| time |' not in text
    assert "pip install 'm2l-jax[train]'" in caplog.text


def test_a_setting_stays_in_its_cell():
    from m2l_jax.sharing.card import _as_code

    assert _as_code('<b>`') == r'`"\u003cb>\u0060"`'
    assert json.loads(_as_code('<b>`')[1:-1]) == '<b>`'
