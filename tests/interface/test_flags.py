import subprocess
import sys

import pytest
from absl import flags

from m2l_jax.interface.command import define_finite_float

NUMBER = define_finite_float('number_under_test', 1.0, 'A number.', lower_bound=0.5)


@pytest.fixture
def parse():
    yield lambda text: flags.FLAGS(['test', f'--number_under_test={text}'])
    flags.FLAGS['number_under_test'].unparse()


def test_a_number_is_taken(parse):
    parse('0.5')
    assert NUMBER.value == 0.5


@pytest.mark.parametrize('text', ['nan', 'inf', '0.4'])
def test_what_is_no_number_in_range_is_refused(parse, text):
    with pytest.raises(flags.IllegalFlagValueError, match='number_under_test'):
        parse(text)


@pytest.mark.parametrize('text', ['-1', '4294967296', '99999999999999999999', '2.0'])
def test_a_seed_beyond_the_range_is_refused(text):
    result = subprocess.run(
        [sys.executable, '-m', 'm2l_jax.reconstruct', f'--seed={text}'],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f'error: --seed={text}: ')
