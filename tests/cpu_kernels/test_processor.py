import pytest

from m2l_jax.cpu_kernels.processor import multiplies_bfloat16


@pytest.mark.parametrize(
    ('description', 'multiplies'),
    [
        ('flags\t\t: fpu avx512f avx512_bf16 avx512vbmi\n', True),
        (
            'model name\t: Xeon\nflags\t\t: fpu amx_bf16 amx_tile amx_int8\nbugs\t\t: spectre\n',
            True,
        ),
        ('flags\t\t: fpu avx2 avx512f avx512_vnni amx_tile\n', False),
        ('flags\t\t: fpu avx512f no_avx512_bf16_yet\n', False),
        ('flags\t\t: fpu\nbugs\t\t: avx512_bf16\n', False),
        ('Features\t: fp asimd bf16\n', False),  # ARM's
        ('', False),
    ],
)
def test_the_flags_decide(tmp_path, description, multiplies):
    path = tmp_path / 'cpuinfo'
    path.write_text(description)
    assert multiplies_bfloat16(path) == multiplies


def test_without_a_description_there_is_no_such_product(tmp_path):
    assert not multiplies_bfloat16(tmp_path / 'missing')
