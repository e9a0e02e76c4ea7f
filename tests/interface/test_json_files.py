import json
import math

import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import write_json


def test_numbers_that_are_not_finite_are_null(tmp_path):
    content = {'mean': math.nan, 'clips': [{'si_sdr': -math.inf, 'lsd': 1.5}, (2, None)], 'n': 3}
    write_json(tmp_path / 'new' / 'report.json', content)
    text = (tmp_path / 'new' / 'report.json').read_text()
    expected = {'mean': None, 'clips': [{'si_sdr': None, 'lsd': 1.5}, [2, None]], 'n': 3}
    assert json.loads(text, parse_constant=pytest.fail) == expected
    assert text.startswith('{\n  "mean"')


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'report\.json cannot be written'):
        write_json(tmp_path / 'file' / 'report.json', {})
