"""A job whose shards are kinds of models, each of which encodes and decodes the same music."""

import dataclasses
import itertools
import pathlib

from m2l_jax.corpus.decode import DecodeJob, DecodeSettings
from m2l_jax.corpus.encode import EncodeJob, EncodeSettings
from m2l_jax.corpus.inputs import find_audio, latent_items
from m2l_jax.corpus.models import load_codec
from m2l_jax.corpus.plan import Shard

CHUNK_SECONDS = 8 * 128 / 44_100

CHANNELS = {'mono': 2, 'stereo': 4}  # planes
BOTTLENECKS = {'continuous': {}, 'discrete': {'bottleneck': 'fsq', 'levels': 5}}
KINDS = list(itertools.product(CHANNELS, BOTTLENECKS, ('float32', 'bfloat16')))


@dataclasses.dataclass(frozen=True)
class FamilyJob:
    """Encodes the music, and decodes the latents, with the model and dtype of each shard."""

    checkpoints: str
    music: str
    folder: str

    def open(self):
        return self

    def complete(self, summaries):
        pass

    def work(self, shard, advance):
        channels, bottleneck, dtype = KINDS[shard.number]
        output = pathlib.Path(self.folder, '-'.join(KINDS[shard.number]))
        codec = load_codec(f'{self.checkpoints}/{channels}-{bottleneck}.safetensors', dtype)
        mode = 'joint' if channels == 'stereo' else 'each'
        kind = 'tokens' if bottleneck == 'discrete' else 'latents'
        encoding = EncodeSettings(
            codec.model_id,
            storage='uint8' if kind == 'tokens' else 'float32',
            kind=kind,
            dtype=dtype,
            chunk_seconds=CHUNK_SECONDS,
            channel_mode=mode,
        )
        target = encoding.target(codec.config, output / 'latents', 1)
        encode = EncodeJob(None, encoding, target, 1, codec).open()
        items = find_audio(self.music, output)[0]
        encoded = encode.work(Shard(shard.number, items), advance)
        decoding = DecodeSettings(
            codec.model_id, dtype=dtype, chunk_seconds=CHUNK_SECONDS, overlap_seconds=0.0
        )
        decode = DecodeJob(None, decoding, str(output / 'audio'), 1, codec).open()
        items = latent_items(str(output / 'latents'), output / 'audio')
        decoded = decode.work(Shard(shard.number, items), advance)
        failures = encoded.failures + decoded.failures
        return dataclasses.replace(decoded, failures=failures, outputs=())
