"""A corpus of broken files is read without a crash, a hang, or memory for what headers claim."""

import tracemalloc

import pytest
import soundfile

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from tests.drills import mutated_audio

RATE = 44_100


def in_blocks(path):
    for _ in files.read_blocks(path, RATE, 20_000, 500):
        pass


def in_parts(path):
    total = files.read_info(path).samples_at(RATE)
    assert total < 10 * RATE  # whatever its header claims
    for start in range(0, total, 20_000):
        files.read(path, RATE, start, min(20_000, total - start))


def whole(path):
    files.read(path, RATE)


def refused(reader, path):
    """The message for a file that cannot be read; None for one that can."""
    try:
        reader(path)
    except InputError as error:
        return str(error)
    return None


def test_broken_files_are_read_or_refused_in_a_line(tmp_path):
    written = mutated_audio.write_mutations(tmp_path, seed=3, count=160, seconds=0.4)
    tracemalloc.start()
    for name, mutation in written.items():
        for reader in (files.read_info, whole, in_parts, in_blocks):
            refusal = refused(reader, tmp_path / name)
            if refusal is None:
                assert not (mutation.broken and reader is in_blocks), mutation.label
            else:
                assert name in refusal
                assert '\n' not in refusal
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize('number', range(len(mutated_audio.KINDS)))
def test_what_is_broken_could_be_read_before(tmp_path, number):
    suffix, kind, subtype = mutated_audio.KINDS[number]
    path = tmp_path / f'a{suffix}'
    path.write_bytes(mutated_audio.encode(kind, subtype, 0.4))
    assert soundfile.info(path).format == kind
    in_parts(path)
    in_blocks(path)


def test_the_same_seed_breaks_the_same():
    first, again, other = (
        [(file.suffix, file.label, len(file.content)) for file in mutated_audio.mutations(seed, 40)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
