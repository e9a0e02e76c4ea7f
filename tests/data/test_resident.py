import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from m2l_jax.data import resident
from m2l_jax.data.config import Collection
from m2l_jax.data.sources import open_collections
from m2l_jax.interface.errors import InputError
from m2l_jax.training import mesh as meshes
from tests.conftest import is_part_of, make_music

CROP, BATCH = 1000, 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that seconds of music fill many blocks, on every device."""
    monkeypatch.setattr(resident, '_BLOCK', 4096)


def load(mix, devices=1, min_rms=0.001, other_bytes=0):
    mesh = meshes.make_mesh(jax.devices()[:devices])
    loader = resident.ResidentLoader(mesh, meshes.AXIS, CROP, min_rms, other_bytes)
    return loader, loader.load(open_collections(mix, 44_100, CROP)), mesh


def cut(corpus, mesh, step=0):
    def on_each_device(corpus):
        return resident.cut_crops(corpus, jax.random.key(step), BATCH, CROP, meshes.AXIS)

    sharded = jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(resident.ResidentCorpus.specs(meshes.AXIS),),
        out_specs=meshes.ROWS,
    )
    return np.asarray(jax.jit(sharded)(corpus))


def test_crops_are_parts_of_the_files_and_named(music_folder):
    loader, corpus, mesh = load([Collection('', str(music_folder), 1.0)])
    files = {
        str(path): soundfile.read(path, always_2d=True)[0].T for path in music_folder.iterdir()
    }
    crops = cut(corpus, mesh)
    items = loader.items_of(corpus, jax.random.key(0), BATCH)
    assert set(items) == set(files)
    for crop, item in zip(crops, items, strict=True):
        assert any(is_part_of(crop, channel, 0.51 / 32768) for channel in files[item])


def test_crops_do_not_depend_on_the_number_of_devices(music_folder):
    mix = [Collection('', str(music_folder), 1.0)]
    _, one, mesh_one = load(mix, 1)
    _, four, mesh_four = load(mix, 4)
    assert four.blocks.addressable_shards[0].data.shape[0] * 4 == four.blocks.shape[0]
    for step in range(3):
        np.testing.assert_array_equal(cut(one, mesh_one, step), cut(four, mesh_four, step))
    assert not np.array_equal(cut(one, mesh_one, 0), cut(one, mesh_one, 1))


def test_spans_are_exactly_the_usable_starts(tmp_path):
    """Against the definition, start by start."""
    signal = make_music(0.3)[0]
    signal[3000:6000] *= 1e-3
    signal[9000] = np.nan
    soundfile.write(tmp_path / 'a.wav', signal, 44_100, subtype='FLOAT')
    loader, corpus, _ = load([Collection('', str(tmp_path), 1.0)])
    samples = np.round(np.nan_to_num(signal) * 32768)
    windows = np.lib.stride_tricks.sliding_window_view(samples, CROP)
    usable = np.sqrt(np.mean(windows**2, axis=1)) >= 0.001 * 32768
    usable[9000 - CROP + 1 : 9001] = False
    found = np.zeros_like(usable)
    for block, first, count in zip(corpus.block, corpus.first, corpus.count, strict=True):
        start = int(block) * 4096 + int(first)
        assert not found[start : start + int(count)].any()
        found[start : start + int(count)] = True
    np.testing.assert_array_equal(found, usable)
    assert 0 < usable.sum() < len(usable)
    assert 'holds NaN' in loader.reported[str(tmp_path / 'a.wav')]


def test_the_mix_has_its_weights_and_channels_are_drawn_evenly(tmp_path):
    for name, seconds, level in (('much', 2.0, 0.5), ('little', 0.2, -0.5)):
        (tmp_path / name).mkdir()
        stereo = np.full((int(seconds * 44_100), 2), level)
        stereo[:, 1] *= 0.5
        soundfile.write(tmp_path / name / 'a.wav', stereo, 44_100)
    mix = [Collection(n, str(tmp_path / n), w) for n, w in (('much', 0.25), ('little', 0.75))]
    _, corpus, _ = load(mix)
    span, start = resident.draw_spans(corpus, jax.random.key(3), jnp.arange(4000))
    samples = np.asarray(corpus.blocks)[np.asarray(corpus.block)[span], np.asarray(start)] / 32768
    levels, counts = np.unique(np.round(samples, 2), return_counts=True)
    assert dict(zip(levels, counts / 4000, strict=True)) == pytest.approx(
        {-0.5: 0.375, -0.25: 0.375, 0.25: 0.125, 0.5: 0.125}, abs=0.03
    )


def test_damaged_files_are_named_and_left_out(music_folder):
    cut_file = music_folder / 'cut.flac'
    soundfile.write(cut_file, make_music(6).T, 44_100)
    cut_file.write_bytes(cut_file.read_bytes()[:50_000])
    soundfile.write(music_folder / 'silent.wav', np.zeros(50_000), 44_100)
    loader, corpus, mesh = load([Collection('', str(music_folder), 1.0)])
    assert {path.rsplit('/')[-1] for path in loader.reported} == {'cut.flac', 'silent.wav'}
    assert np.min(np.sqrt(np.mean(cut(corpus, mesh) ** 2, axis=1))) >= 0.001


def test_a_file_of_which_16_bits_would_keep_the_signs_only_is_named_and_left_out(tmp_path):
    soundfile.write(tmp_path / 'good.wav', make_music(1).T, 44_100)
    loud = tmp_path / 'loud.wav'
    soundfile.write(loud, make_music(1).T * 32_768, 44_100, subtype='FLOAT')
    loader, corpus, mesh = load([Collection('', str(tmp_path), 1.0)])
    assert list(loader.reported) == [str(loud)]
    assert loader.reported[str(loud)].startswith(f'{loud} is too loud: peak ')
    assert np.abs(cut(corpus, mesh)).max() < 0.99


def test_a_collection_without_a_crop_is_refused(music_folder, tmp_path):
    silent = tmp_path / 'quiet'
    silent.mkdir()
    soundfile.write(silent / 'silent.wav', np.zeros(50_000), 44_100)
    mix = [Collection('a', str(music_folder), 0.5), Collection('b', str(silent), 0.5)]
    with pytest.raises(InputError, match=r'quiet has no crop that can be used \(all silent'):
        load(mix)


def test_a_corpus_larger_than_memory_is_refused(music_folder, monkeypatch):
    monkeypatch.setattr(resident, '_free_memory', lambda mesh: 100_000)
    with pytest.raises(
        InputError, match=r'takes 0\.000\d+ GiB on each of 1 devices, which have 9\.31e-05'
    ):
        load([Collection('', str(music_folder), 1.0)])


def test_a_corpus_that_leaves_no_room_for_the_state_is_refused(music_folder, monkeypatch):
    mix = [Collection('', str(music_folder), 1.0)]
    size = load(mix)[1].blocks.nbytes
    monkeypatch.setattr(resident, '_free_memory', lambda mesh: size + 1000)
    load(mix, other_bytes=1000)
    with pytest.raises(InputError, match=r'and are to hold 9\.32e-07 GiB of state too: use more'):
        load(mix, other_bytes=1001)
