import pathlib

from tools import house


def rows_of(**lines):
    counted = {pathlib.PurePath(name.replace('__', '/') + '.py'): n for name, n in lines.items()}
    return house.describe(counted)


def test_parts_are_summed_and_compared_with_their_targets():
    rows = rows_of(m2l_jax__train=600, m2l_jax__plot=100, m2l_jax__model__unet=300, tests__x=9)
    by_name = {row.split()[0]: row.split()[1:] for row in rows if row.strip()}
    assert by_name['commands'] == ['700', '2', '650', 'over']
    assert by_name['model'] == ['300', '1', '850']
    assert by_name['package'] == ['1,000', '3', '11,500']
    assert by_name['core'] == ['300', '1', '4,200']
    assert by_name['tests'] == ['9', '1']


def test_large_files_and_folders_are_named():
    many = {f'm2l_jax__corpus__part_{number}': 1 for number in range(14)}
    rows = rows_of(m2l_jax__audio__mpeg=321, **many)
    assert 'm2l_jax/audio/mpeg.py has 321 lines, more than 320' in rows
    assert 'm2l_jax/corpus has 14 files, more than 13' in rows
    assert not any('more than' in row for row in rows_of(m2l_jax__audio__mpeg=320))


def test_assets_are_not_counted():
    assert not any('assets' in path.parts for path in house.count_lines())
