import dataclasses
import json

import numpy as np
import pytest
import soundfile
import soxr
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from m2l_jax.corpus.prepare import prepare
from m2l_jax.corpus.run import RunOptions
from m2l_jax.data.config import Collection
from m2l_jax.data.crops import CropReader
from m2l_jax.data.segments import SegmentConfig
from m2l_jax.data.sources import AudioDataset, open_collections
from m2l_jax.interface.errors import InputError
from tests.conftest import is_part_of, make_music

CROP = 8192


@pytest.fixture
def prepared(music_folder, tmp_path):
    """The music folder's mono and stereo file of 3 s as a dataset."""
    folder = tmp_path / 'prepared'
    config = SegmentConfig(44_100, 1.0, 13, 0.001, 128.0)
    prepare(str(music_folder), folder, config, RunOptions(share='0/1'))
    return folder


def write_dataset(folder, features, records):
    """A dataset as others make them."""
    folder.mkdir()
    features = tfds.features.FeaturesDict(features)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name='other', split='test', filetype_suffix='array_record'
    )
    writer = ArrayRecordWriter(
        str(template.sharded_filepath(shard_index=0, num_shards=1)), 'group_size:1'
    )
    for record in records:
        writer.write(features.serialize_example(record))
    writer.close()
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[
            tfds.core.SplitInfo('test', [len(records)], num_bytes=0, filename_template=template)
        ],
        check_data=False,
    )
    return folder


def read_crops(path, sample_rate=44_100, rows=20):
    mix = [Collection(str(path), str(path), 1.0)]
    reader = CropReader(open_collections(mix, sample_rate, CROP), 0, 0.001)
    return [reader.read(0, row) for row in range(rows)], reader


def test_crops_of_a_prepared_dataset_are_parts_of_the_files(prepared, music_folder):
    channels = [
        channel
        for path in music_folder.iterdir()
        for channel in soundfile.read(path, always_2d=True)[0].T
    ]
    crops, reader = read_crops(prepared)
    again, _ = read_crops(prepared)
    np.testing.assert_array_equal(crops, again)
    assert len({crop.tobytes() for crop in crops}) == 20
    for crop in crops:
        assert any(is_part_of(crop, channel, 0.51 / 32768) for channel in channels)
    assert reader.locate(0, 0).item.startswith(f'{prepared}[train][')


def test_crops_longer_than_a_dataset_was_prepared_for_are_refused(prepared):
    """It was for crops of 8192 samples at 44.1 kHz."""

    def open_for(samples, sample_rate):
        return open_collections([Collection('', str(prepared), 1.0)], sample_rate, samples)

    open_for(8192, 44_100)
    open_for(4096, 22_050)
    message = r'prepared was prepared for crops of at most 8192 samples, and those of this training'
    text = rf'{message} have {{}}, at 44100 Hz: prepare it with --crop_frames=14, or lower config'
    with pytest.raises(InputError, match=text.format(8193)):
        open_for(8193, 44_100)
    with pytest.raises(InputError, match=text.format(8194)):
        open_for(4097, 22_050)
    assert SegmentConfig(44_100, 1.0, 14, 0.001, 128.0).crop_samples >= 8194
    (prepared / 'job.json').write_text('{')
    with pytest.raises(InputError, match=r'job\.json is damaged: prepare the dataset again'):
        open_for(8192, 44_100)
    config = SegmentConfig(44_100, 1.0, 13, 0.001, 128.0)
    (prepared / 'job.json').unlink()
    earlier = json.dumps({'settings': dataclasses.asdict(config), 'files': []})
    (prepared / 'preparation.json').write_text(earlier)  # as earlier versions did
    with pytest.raises(InputError, match=text.format(8193)):
        open_for(8193, 44_100)
    (prepared / 'preparation.json').unlink()
    open_for(8193, 44_100)


def test_a_dataset_that_is_not_complete_is_refused(prepared):
    (prepared / 'dataset_info.json').unlink()
    with pytest.raises(InputError, match='prepared is no complete dataset: run `prepare` to its'):
        read_crops(prepared)


def test_the_output_of_another_job_is_audio_like_any(music_folder):
    """As `decode` writes it."""
    (music_folder / 'job.json').write_text('{"settings": {"format": "wav"}, "input": {}}')
    ((_, source),) = open_collections([Collection('', str(music_folder), 1.0)], 44_100, CROP)
    assert source.describe().startswith('2 ')


def test_public_sets_are_read_whatever_they_store(tmp_path):
    """Integers in a list at another rate, and floats with channels, as TFDS's own sets have."""
    music = make_music(2, 22_050)[0]
    integers = np.round(music * 32767).astype(np.int64)
    folder = write_dataset(
        tmp_path / 'speech',
        {'audio': tfds.features.Audio(sample_rate=22_050), 'id': tfds.features.Text()},
        [{'audio': integers, 'id': 'a'}],
    )
    crops, _ = read_crops(f'{folder}[test]', rows=3)
    whole = soxr.resample(integers / 32768, 22_050, 44_100)
    assert all(is_part_of(crop, whole, 1e-5) for crop in crops)

    stereo = make_music(1, channels=2).T
    audio = tfds.features.Audio(shape=(44_100, 2), dtype=np.float32, sample_rate=44_100)
    folder = write_dataset(tmp_path / 'notes', {'audio': audio}, [{'audio': stereo}])
    crops, _ = read_crops(f'{folder}[test]')
    which = [[is_part_of(crop, channel, 0) for channel in stereo.T] for crop in crops]
    assert set(map(tuple, which)) == {(True, False), (False, True)}


def test_short_records_are_named_and_redrawn(tmp_path, caplog):
    audio = tfds.features.Audio(sample_rate=44_100)
    long, short = (np.round(make_music(s)[0] * 32767).astype(np.int64) for s in (1, 0.1))
    folder = write_dataset(
        tmp_path / 'mixed', {'audio': audio}, [{'audio': short}, {'audio': long}]
    )
    _, reader = read_crops(f'{folder}[test]')
    (reason,) = reader.reported.values()
    assert reason == f'{folder}[test][0] is shorter than a crop (8192 samples at 44100 Hz)'


def test_what_is_no_audio_dataset_is_refused(tmp_path, prepared):
    labels = write_dataset(tmp_path / 'labels', {'label': np.int32}, [{'label': 1}])
    with pytest.raises(InputError, match="labels has no feature 'audio', only label"):
        read_crops(f'{labels}[test]')
    audio = tfds.features.Audio(sample_rate=44_100)
    folder = write_dataset(tmp_path / 'splits', {'audio': audio}, [{'audio': [0]}])
    with pytest.raises(InputError, match=r"has no split 'train' \(it has test\): pass .*\[SPLIT\]"):
        read_crops(folder)
    with pytest.raises(InputError, match='tfds:nowhere is no dataset that TFDS can open'):
        read_crops('tfds:nowhere')
    words = {'audio': tfds.features.Text()}
    folder = write_dataset(tmp_path / 'words', words, [{'audio': 'la'}])
    with pytest.raises(InputError, match="the feature 'audio' is no waveform of numbers"):
        read_crops(f'{folder}[test]')
    folder = write_dataset(tmp_path / 'deep', {'audio': audio}, [{'audio': [1 << 20] * 9000}])
    _, reader = read_crops(f'{folder}[test]', rows=0)
    with pytest.raises(InputError, match='2000 crops drawn in a row'):
        reader.read(0, 0)
    (reason,) = reader.reported.values()
    assert reason == f'{folder}[test][0] has integers of more than 16 bits'
    (prepared / 'dataset_info.json').write_text('{')
    with pytest.raises(InputError, match='prepared is no dataset that TFDS can open'):
        read_crops(prepared)
    unknown = tfds.features.Audio(dtype=np.float32)
    folder = write_dataset(tmp_path / 'rateless', {'audio': unknown}, [{'audio': np.zeros(9)}])
    with pytest.raises(InputError, match='rateless states no sample rate'):
        read_crops(f'{folder}[test]')


def test_items_are_whole_records(prepared):
    source = AudioDataset(str(prepared), 44_100, CROP)
    items = dict(source.items())
    assert len(items) == len(source._records)
    assert {len(waveform) for waveform in items.values()} == {1}
    assert sum(waveform.shape[1] for waveform in items.values()) > 9 * 44_100
