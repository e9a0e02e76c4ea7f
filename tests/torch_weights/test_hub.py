"""Weights from the Hugging Face Hub, which a stand-in on this machine plays."""

import pathlib
import sys

import numpy as np
import pytest
from huggingface_hub import close_session, constants

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.weights import convert, fix_checkpoint, locate_weights
from m2l_jax.evaluation.quality import _open_models
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights import hub
from m2l_jax.torch_weights.conversion import save_torch_model
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.resume import read_initial
from tests.commands import tiny
from tests.hub_stand_in import TOKEN
from tests.small_training import make_config
from tests.torch_weights.test_conversion import UNEVEN, random_params

PAGE = 'https?://[^ ]*/user/model'


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Two models of different sizes as the bytes of files, and one's parameters."""
    folder = tmp_path_factory.mktemp('weights')
    params = random_params(UNEVEN)
    save_torch_model(folder / 'a.safetensors', UNEVEN, params)
    save_torch_model(folder / 'b.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    return *((folder / f'{each}.safetensors').read_bytes() for each in 'ab'), params


def log_in(monkeypatch):
    monkeypatch.setenv('HF_TOKEN', TOKEN)


def test_a_model_is_fetched_once_and_is_the_same(stand_in, weights):
    repository = stand_in.add('user/model', model_safetensors=weights[0], README_md=b'# A model')
    codec = EncoderDecoder('hf://user/model')
    assert codec.config == UNEVEN
    np.testing.assert_array_equal(codec.params['encoder']['gain'], weights[2]['encoder']['gain'])
    path = locate_weights('hf://user/model')
    assert path.is_relative_to(constants.HF_HUB_CACHE)
    assert len([each for each in stand_in.asked if each.startswith('GET /cdn/')]) == 1
    # A commit that the cache holds needs no connection.
    commit = repository.branches['main']
    asked = len(stand_in.asked)
    pinned = fix_checkpoint('hf://user/model')
    assert pinned == f'hf://user/model@{commit}/model.safetensors'
    asked = len(stand_in.asked)
    assert locate_weights(pinned) == locate_weights(f'hf://user/model@{commit}') == path
    assert len(stand_in.asked) == asked
    assert EncoderDecoder(pinned).model_id == codec.model_id


def test_a_revision_or_a_file_can_be_named(stand_in, weights):
    repository = stand_in.add('user/model', model_safetensors=weights[0], b_safetensors=weights[1])
    repository.commit({'model.safetensors': weights[1]}, branch='tiny/second')
    for address, config in (
        ('hf://user/model', UNEVEN),
        ('hf://models/user/model/', UNEVEN),
        ('hf://user/model/b.safetensors', tiny.MODEL),
        ('hf://user/model@main/b.safetensors', tiny.MODEL),
        ('hf://user/model@tiny%2Fsecond', tiny.MODEL),
    ):
        assert EncoderDecoder(address).config == config, address
    assert EncoderDecoder.from_pretrained('user/model').config == UNEVEN
    assert EncoderDecoder.from_pretrained('user/model@tiny%2Fsecond').config == tiny.MODEL
    with pytest.raises(InputError, match=r"user/model@v1 names a revision already: .*='v2'"):
        EncoderDecoder.from_pretrained('user/model@v1', 'v2')
    codec = EncoderDecoder.from_pretrained('user/model', 'tiny/second', dtype='bfloat16')
    assert codec.config.latent_channels == tiny.MODEL.latent_channels
    assert codec.config.dtype == 'bfloat16'


def test_from_pretrained_takes_local_folders_and_files_too(tmp_path, monkeypatch, weights):
    folder = tmp_path / 'user' / 'model'
    folder.mkdir(parents=True)
    (folder / 'model.safetensors').write_bytes(weights[0])
    monkeypatch.chdir(tmp_path)
    for path in ('user/model', folder, 'user/model/model.safetensors'):
        assert EncoderDecoder.from_pretrained(path).config == UNEVEN
    assert EncoderDecoder.from_pretrained('small').config.base_channels == 32
    with pytest.raises(InputError, match="user/model takes no revision='v1': pass user/model of"):
        EncoderDecoder.from_pretrained('user/model', 'v1')


def test_a_path_that_is_missing_is_not_looked_for_in_the_hub(stand_in, tmp_path):
    path = tmp_path / 'user' / 'model'
    for missing in (path, str(path), './user/model', pathlib.Path('user/model'), 'user/a.pt'):
        with pytest.raises(InputError, match=r'(model|a\.pt) does not exist'):
            EncoderDecoder.from_pretrained(missing)
    for other in (None, 3, b'user/model'):
        with pytest.raises(InputError, match=r'^model=.* must be user/model of the Hub, or a path'):
            EncoderDecoder.from_pretrained(other)
    assert not stand_in.asked


@pytest.mark.parametrize('offline', [False, True])
@pytest.mark.parametrize(
    'address',
    [
        'hf://user/model@%2e%2e',
        'hf://user/model@a%2F..%2Fb',
        'hf://user/model@%2Fetc',
        'hf://user/model@a%1Bb',
        'hf://user/model/../../refs/main',
        'hf://user/model//etc/a.pt',
        'hf://user/model/a\x1b.pt',
        'hf://us\x1ber/model',
        'hf://us er/model@' + 40 * 'a',
        'hf://\n',
    ],
)
def test_an_address_never_leaves_its_repository(stand_in, weights, monkeypatch, address, offline):
    stand_in.add('user/model', model_safetensors=weights[0])
    locate_weights('hf://user/model')
    close_session()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', offline)
    with pytest.raises(
        InputError, match=r'is no (address|(name of a )?rep|revision|file)'
    ) as caught:
        locate_weights(address)
    assert str(caught.value).isprintable()


def test_another_kind_of_file_is_refused_before_the_download(stand_in):
    stand_in.add('user/model', big_bin=b'0')
    with pytest.raises(
        InputError, match=r'hf://user/model/big\.bin is no file of weights: use one'
    ):
        EncoderDecoder('hf://user/model/big.bin')
    assert not stand_in.asked


def test_names_of_others_reach_no_terminal_raw(stand_in):
    names = {f'{each}\x1b[2J.pt': b'' for each in 'ab'}
    stand_in.add('user/model').commit(names)
    stand_in.add('user/other').commit({'a\x1b.safetensors': b''})
    for address, message in (
        ('hf://user/model', r'several files of weights \(a\\x1b\[2J\.pt, b'),
        ('hf://user/model/c.pt', r'it holds a\\x1b\[2J\.pt, b'),
        ('hf://user/other', r"'a\\x1b\.safetensors' is no file in the Hub"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            EncoderDecoder(address)
        assert str(caught.value).isprintable()


def test_a_repository_of_the_pytorch_package_loads(stand_in, tmp_path):
    pytest.importorskip('torch', reason='PyTorch is missing: pip install -e .[torch]')
    import torch

    path, params = tmp_path / 'maestro.pt', random_params(UNEVEN)
    save_torch_model(path, UNEVEN, params)
    state = torch.load(path, weights_only=True)['gen_state_dict']
    torch.save({'gen_state_dict': state, 'it': 5}, path)  # without this project's record
    stand_in.add('someone/maestro', maestro_pt=path.read_bytes(), README_md=b'', x_json=b'{}')
    codec = EncoderDecoder('hf://someone/maestro')
    assert codec.config.base_channels == UNEVEN.base_channels
    convert('hf://someone/maestro', tmp_path / 'a.safetensors')
    loaded = EncoderDecoder(tmp_path / 'a.safetensors')
    np.testing.assert_array_equal(loaded.params['encoder']['gain'], params['encoder']['gain'])


def test_pytorch_is_missed_before_the_download(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    stand_in.add('someone/maestro', maestro_pt=b'')
    message = r'someone/maestro/maestro\.pt is a PyTorch file and PyTorch is not installed'
    with pytest.raises(InputError, match=message):
        EncoderDecoder('hf://someone/maestro')
    assert not any(each.startswith('GET /someone') for each in stand_in.asked)


def test_several_files_are_listed(stand_in, weights):
    stand_in.add('user/model', b_safetensors=weights[1], a_safetensors=weights[0])
    message = (
        r'hf://user/model holds several files of weights \(a\.safetensors, b\.safetensors\): '
        r'choose one, as in hf://user/model/a\.safetensors'
    )
    with pytest.raises(InputError, match=message):
        EncoderDecoder('hf://user/model')


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        (
            'hf://model',
            'hf://model is no address of a model: use hf://user/model, hf://user/model@',
        ),
        ('hf://us er/model', 'hf://us er/model is no name of a repository: '),
        ('hf://user/other', 'hf://user/other does not exist or is private: check the name; for a '),
        ('hf://user/model@v2', f"hf://user/model has no revision 'v2': see {PAGE}$"),
        ('hf://user/model', r'hf://user/model holds no \.pt or \.safetensors file: it is no model'),
        ('hf://user/model/x.pt', r"hf://user/model has no file 'x\.pt': it holds no weights"),
    ],
)
def test_what_is_missing_is_named_in_a_line(stand_in, address, message):
    stand_in.add('user/model', README_md=b'', weights_h5=b'0')
    with pytest.raises(InputError, match=message) as caught:
        EncoderDecoder(address)
    assert '\n' not in str(caught.value)


def test_gated_and_private_ones_need_a_login(stand_in, weights, monkeypatch):
    repository = stand_in.add('user/model', model_safetensors=weights[0])
    repository.gated = True
    log = r'log in with `hf auth login` or set HF_TOKEN'
    with pytest.raises(
        InputError, match=f'hf://user/model is gated: ask for access on {PAGE}, then {log}'
    ):
        EncoderDecoder('hf://user/model')
    repository.gated, repository.private = False, True
    with pytest.raises(InputError, match=f'does not exist or is private: .* {log}'):
        EncoderDecoder('hf://user/model')
    repository.gated = True
    log_in(monkeypatch)
    assert EncoderDecoder('hf://user/model').config == UNEVEN
    stand_in.refused['GET /api/models'] = 403
    with pytest.raises(
        InputError, match='your token gives no right to this in hf://user/model: log'
    ):
        EncoderDecoder('hf://user/model')


@pytest.mark.parametrize('cause', ['variable', 'network', 'broken'])
def test_without_a_connection_the_cache_serves(stand_in, weights, monkeypatch, caplog, cause):
    repository = stand_in.add('user/model', model_safetensors=weights[0])
    stand_in.add('user/other', model_safetensors=weights[0])
    locate_weights('hf://user/model')
    reason = {'variable': 'HF_HUB_OFFLINE is set', 'network': '.*refused', 'broken': '.*503'}[cause]
    close_session()  # the next one is made as the variables say, without a connection
    if cause == 'variable':
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    elif cause == 'network':
        stand_in.__exit__()
    else:
        stand_in.refused['/'] = 503
    commit = repository.branches['main']
    for address in (
        'hf://user/model',
        'hf://user/model@main',
        'hf://user/model/model.safetensors',
        f'hf://user/model@{commit}',
    ):
        assert EncoderDecoder(address).config == UNEVEN, address
    assert 'hf://user/model is read from the cache: ' in caplog.text
    message = (
        rf'hf://user/other is not in the cache and cannot be fetched \({reason}.*\)\. Fetch it '
        r'from http[^ ]*/user/other on a machine with a connection, and pass the file as'
    )
    for address in ('hf://user/other', 'hf://user/other@v1'):
        with pytest.raises(InputError, match=message.replace('other is', 'other(@v1)? is')):
            EncoderDecoder(address)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(pathlib.Path(constants.HF_HUB_CACHE, 'no')))
    with pytest.raises(InputError, match=message):
        EncoderDecoder('hf://user/other')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (lambda content: content[:-7], r'model\.safetensors is damaged \(.*: copy or download it'),
        (
            lambda content: b'<html>',
            r'model\.safetensors is damaged \(.*: copy or download it again',
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_repository(stand_in, weights, content, message):
    stand_in.add('user/model', model_safetensors=content(weights[0]))
    with pytest.raises(InputError, match=f'^hf://user/model: .*{message}') as caught:
        EncoderDecoder('hf://user/model')
    assert '\n' not in str(caught.value)


def test_another_networks_file_is_named_with_its_repository(stand_in, tmp_path):
    from safetensors.numpy import save_file

    save_file({'layer.weight': np.zeros(3, np.float32)}, tmp_path / 'x.safetensors')
    stand_in.add('user/model', model_safetensors=(tmp_path / 'x.safetensors').read_bytes())
    with pytest.raises(InputError, match=r'^hf://user/model: .* this is not a Music2Latent model'):
        EncoderDecoder('hf://user/model')


def test_a_download_that_breaks_off_leaves_nothing(stand_in, weights):
    stand_in.add('user/model', model_safetensors=weights[0])
    stand_in.cut = True
    with pytest.raises(
        InputError, match='hf://user/model is not in the cache and cannot be fetched'
    ):
        EncoderDecoder('hf://user/model')
    stand_in.cut = False
    assert EncoderDecoder('hf://user/model').config == UNEVEN


def test_models_are_not_converted_into_the_hub(tmp_path):
    with pytest.raises(
        InputError, match=r'hf://user/model: python -m m2l_jax\.push uploads models'
    ):
        convert('small', 'hf://user/model')


def test_an_address_is_written_as_it_is_read():
    for address in ('hf://a/b', 'hf://a/b@v1', 'hf://a/b/c/d.pt', 'hf://a/b@x%2Fy/c.pt'):
        assert str(hub.parse(address)) == address
    assert hub.parse('hf://a/b@refs/pr/3/c.pt') == hub.Place('a/b', 'refs/pr/3', 'c.pt')


def test_a_training_may_start_from_one(stand_in, tmp_path):
    model = build(ModelConfig, make_config('music').model)
    params = random_params(model)
    save_torch_model(tmp_path / 'a.safetensors', model, params)
    stand_in.add('user/model', model_safetensors=(tmp_path / 'a.safetensors').read_bytes())
    config = make_config('music')
    config.init_from = 'hf://user/model'
    settings = build(TrainingConfig, config)
    initial = read_initial(settings, tmp_path / 'run').params
    np.testing.assert_array_equal(initial['encoder']['gain'], params['encoder']['gain'])
    stand_in.repositories.clear()
    with pytest.raises(
        InputError, match=r'^config\.init_from=hf://user/model: hf://user/model does'
    ):
        read_initial(settings, tmp_path / 'run')


def test_an_evaluation_compares_several(stand_in, weights):
    stand_in.add('user/model', model_safetensors=weights[0])
    stand_in.add('user/other', model_safetensors=weights[1])
    codecs = _open_models('hf://user/model', ['hf://user/other'])
    assert [codec.config for codec in codecs.values()] == [UNEVEN, tiny.MODEL]
