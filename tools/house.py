"""Prints how large each part of the code is, beside its target.

    python -m tools.house            prints the table
    python -m tools.house --check    exits with 1 too if something is too large

Counts lines, docstrings and blank ones included, of the text files that git knows; bundled music
and weights are left out.
"""

import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[1]

MOST_LINES_OF_A_FILE = 320
MOST_FILES_OF_A_FOLDER = 13
_CORE = ('model', 'consistency', 'audio', 'data', 'training')
_TARGETS = {
    'commands': 650,
    'corpus': 2300,
    'sharing': None,
    'exporting': 400,
    'migration': None,
    'compilation': 600,
    'training': 1250,
    'probing': None,
    'evaluation': None,
    'codec': 900,
    'data': 1050,
    'checkpoint': 200,
    'torch_weights': 780,
    'model': 850,
    'cpu_kernels': 900,
    'gpu_kernels': 200,
    'consistency': 260,
    'audio': 800,
    'interface': 650,
}
_ELSEWHERE = {
    'configs': None,
    'tools': None,
    'benchmarks': 2200,
    'tests': None,
    'launch': None,
    'docs': None,
    'README.md': 200,
}
_TOTAL = 11_500
_CORE_TOTAL = 4_200
_SUFFIXES = ('.py', '.md', '.sh', '.sbatch', '.yaml', '.toml')


def count_lines() -> dict[pathlib.PurePath, int]:
    """Lines of each text file that git knows, by its path in the repository."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    paths = [pathlib.PurePath(name) for name in listed.stdout.split('\0') if name]
    return {
        path: len((REPOSITORY / path).read_text().splitlines())
        for path in paths
        if path.suffix in _SUFFIXES and 'assets' not in path.parts and (REPOSITORY / path).exists()
    }


def part_of(path: pathlib.PurePath) -> str:
    """The row of the table that a file counts for."""
    if path.parts[0] != 'm2l_jax':
        return path.parts[0]
    return path.parts[1] if len(path.parts) > 2 else 'commands'


def describe(lines: dict[pathlib.PurePath, int]) -> list[str]:
    """The table, and what is too large."""
    sizes: dict[str, list[int]] = {}
    for path, count in lines.items():
        sizes.setdefault(part_of(path), []).append(count)
    package = [path for path in lines if path.parts[0] == 'm2l_jax']
    parts = {part_of(path) for path in package}
    total = sum(lines[path] for path in package)
    core = sum(sum(sizes.get(name, [])) for name in _CORE)
    rows = [f'{"":16}{"lines":>8}{"files":>7}{"target":>8}']
    for name in (*_TARGETS, *sorted(parts - set(_TARGETS))):
        if name in sizes:
            rows.append(_row(name, sum(sizes[name]), len(sizes[name]), _TARGETS.get(name)))
    rows.append(_row('package', total, len(package), _TOTAL))
    rows.append(_row('core', core, sum(len(sizes.get(name, [])) for name in _CORE), _CORE_TOTAL))
    rows.append('')
    for name, target in _ELSEWHERE.items():
        rows.append(_row(name, sum(sizes.get(name, [])), len(sizes.get(name, [])), target))
    rows.append('')
    for path in package:
        if lines[path] > MOST_LINES_OF_A_FILE:
            rows.append(f'{path} has {lines[path]} lines, more than {MOST_LINES_OF_A_FILE}')
    for folder in sorted({path.parent for path in package}):
        count = sum(path.parent == folder and path.name[:2] != '__' for path in package)
        if count > MOST_FILES_OF_A_FOLDER and len(folder.parts) > 1:  # commands are listed by name
            rows.append(f'{folder} has {count} files, more than {MOST_FILES_OF_A_FOLDER}')
    return rows


def _row(name: str, lines: int, files: int, target: int | None) -> str:
    over = ' over' if target is not None and lines > target else ''
    return f'{name:16}{lines:>8,}{files:>7}{"" if target is None else f"{target:,}":>8}{over}'


def main() -> int:
    """Prints the table, and returns 1 if asked to check and something is too large."""
    rows = describe(count_lines())
    print('\n'.join(rows))
    too_large = any(row.endswith(' over') or ' more than ' in row for row in rows)
    return 1 if too_large and '--check' in sys.argv[1:] else 0


if __name__ == '__main__':
    sys.exit(main())
