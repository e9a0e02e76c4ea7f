import pytest

from m2l_jax.interface.progress import describe_duration


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0.4, '0 s'),
        (89, '89 s'),
        (100, '2 min'),
        (3540, '59 min'),
        (3599, '1 h 0 min'),
        (12_000, '3 h 20 min'),
        (190_800, '2 d 5 h'),
    ],
)
def test_durations_are_told_as_people_do(seconds, text):
    assert describe_duration(seconds) == text
