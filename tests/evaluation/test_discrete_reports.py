import dataclasses

import numpy as np
import pytest
import soundfile

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.quality import evaluate
from m2l_jax.evaluation.reporting.table import describe_report
from m2l_jax.sharing.evaluations import read_evaluation
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.conftest import make_music
from tests.torch_weights.test_conversion import random_params


def test_tokens_are_a_system_beside_the_latents(tmp_path):
    config = dataclasses.replace(tiny.MODEL, bottleneck='fsq', levels=7)
    path = str(tmp_path / 'model.safetensors')
    save_torch_model(path, config, random_params(config))
    soundfile.write(tmp_path / 'a.wav', make_music(0.5).T, 44_100)
    options = {'seconds': 0.4, 'media': 1, 'untrained': 0, 'processes': 0, 'embeddings': []}
    report = evaluate(path, str(tmp_path / 'a.wav'), tmp_path / 'out', **options)
    systems, tokens = report['systems'], f'{path} (tokens)'
    assert list(systems) == [path, tokens, 'shaped noise']
    rate = 44_100 / config.samples_per_latent * config.latent_channels / 1000
    assert systems[path]['kilobits_a_second'] == pytest.approx(16 * rate)
    assert systems[tokens]['kilobits_a_second'] == pytest.approx(np.log2(7) * rate)
    heard, original = (
        soundfile.read(next((tmp_path / 'out').glob(f'*{name}.wav')), always_2d=True)[0].T
        for name in ('tokens*', 'original')
    )
    expected = EncoderDecoder(path).reconstruct(original.astype(np.float32), tokens=True)
    np.testing.assert_allclose(heard, expected, atol=2**-15)
    table = describe_report(report)
    assert 'share of the levels in use' in table
    assert 'entropy of a token in bits' in table
    on_card = read_evaluation(tmp_path / 'out' / 'report.json', [systems[path]['model']])
    assert any('(tokens)' in cell for row in on_card.rows for cell in row)
