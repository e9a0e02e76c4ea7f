import json

import numpy as np

from tests.benchmarks.running import run

VARIANTS = ('recipe', 'muon', 'mixture', 'denoising', 'profiles')


def test_finished_runs_are_compared_by_seed(tmp_path):
    """Nothing is left to train. Student's quantile of two degrees of freedom is 4.303."""
    seconds = dict.fromkeys(VARIANTS, 0.1) | {'muon': 0.125}
    lines = [{'seconds_a_step': seconds}]
    for variant in VARIANTS:
        for seed, of_seed in enumerate((0.0, 3.0, 6.0)):
            gains = {'recipe': 0.0, 'muon': 1.0 + 0.1 * seed}
            error = 10.0 + of_seed + gains.get(variant, -1.0)
            figures = {'loss': 1.0, 'error': error, 'latent_gain': 2.0, 'error_sigma_80': error}
            lines.append({'variant': variant, 'seed': seed, 'steps': 800, 'figures': figures})
    lines[-1]['sigma_rel'] = 0.08
    runs = tmp_path / 'runs.jsonl'
    runs.write_text('\n'.join(map(json.dumps, lines)))
    output = tmp_path / 'figures.json'
    printed = run('cheap_training', f'--runs={tmp_path}', f'--output={output}')
    figures = json.loads(output.read_text())
    assert figures['sigma_rel'] == [0.08]
    muon = figures['variants']['muon']
    assert (muon['steps'], muon['seconds_a_step']) == (800, 0.125)
    mean, half = muon['error']['over_recipe']
    np.testing.assert_allclose((mean, half), (1.1, 4.303 * 0.1 / 3**0.5), rtol=1e-3)
    mean, half = figures['variants']['recipe']['error_sigma_80']['mean']
    np.testing.assert_allclose((mean, half), (13, 4.303 * 3 / 3**0.5), rtol=1e-3)
    assert figures['variants']['mixture']['error']['over_recipe'] == [-1, 0]
    row = next(line for line in printed.splitlines() if line.startswith('muon'))
    assert '(+1.1 ± 0.25)' in row
