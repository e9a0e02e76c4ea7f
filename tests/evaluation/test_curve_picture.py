import numpy as np

from m2l_jax.evaluation.curve_picture import draw_curves


def test_levels_share_a_panel_and_come_in_order():
    curves = {
        'loss': {1: 4.0, 3: 2.0},
        'learning_rate': {1: 1e-4},
        'evaluation/loss_sigma_10': {3: 1.0},
        'evaluation/loss_sigma_0.5': {3: 0.5},
        'evaluation/si_sdr': {3: -3.0},
    }
    loss, by_sigma, si_sdr = draw_curves(curves, 'run').axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 4], [3, 2]])
    assert [line.get_label() for line in by_sigma.lines] == ['σ = 0.5', 'σ = 10']
    assert (by_sigma.get_yscale(), si_sdr.get_yscale()) == ('log', 'linear')  # dB are negative too
    assert si_sdr.get_xlabel() == 'steps'
