"""What a GPU's numbers are compared with, here on a CPU."""

from tests.parity.small import SMALLER, require_reference

require_reference()

from benchmarks.numbers import Numbers
from m2l_jax.codec import batches


def test_float32_passes_and_bfloat16_is_told(monkeypatch):
    # Where nothing computes in 16 bits but an accelerator.
    monkeypatch.setattr(batches, 'for_inference', lambda config, _: (config, 'xla'))
    numbers = Numbers(SMALLER, seconds=0.15).compare()
    stages = numbers['float32_against_the_package']
    assert [name for name, stage in stages.items() if not stage['passed']] == []
    assert stages['latents']['snr'] >= stages['latents']['at_least'] == 95
    halved = numbers['bfloat16_against_float32']
    assert halved.keys() == {'random in all layers', 'as initialised'}
    for ratios in halved.values():
        # As seven bits of mantissa give, and no more: it is not float32 again.
        assert 15 < ratios['latents_snr'] < 70
        assert ratios['waveform_si_sdr'] > 15
