"""The paper's recipe at full size (Music2Latent, arXiv 2408.06500, sections 3 and 4).

    python -m m2l_jax.train --config=configs/default.py --config.data.path=MUSIC --workdir=DIR

57,658,690 parameters; 800,000 steps of 16 crops of 0.78 s; about 0.98 TFLOP a crop and step.
The other configs in this folder override a few fields of this one.
"""

import dataclasses

from ml_collections import ConfigDict

from m2l_jax.model.config import ModelConfig


def get_config() -> ConfigDict:
    """Every field of `m2l_jax.training.config.TrainingConfig`."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ''  # or a run, a .pt or .safetensors file, or 'small', to start from
    config.freeze = ''  # or the part of that model that stays as it is, 'encoder' or 'decoder'

    # Sizes, audio representation and noise levels; documented where they are defined.
    config.model = ConfigDict(dataclasses.asdict(ModelConfig(dtype='bfloat16')))

    config.consistency = ConfigDict()
    config.consistency.density = ConfigDict(
        {'name': 'index', 'log_sigma_mean': -1.1, 'log_sigma_std': 2.0}  # or lognormal
    )
    config.consistency.schedule = ConfigDict(
        {'name': 'exponential', 'start_exponent': 1.0, 'end_exponent': 3.0}  # or doubling
    )
    config.consistency.huber_scale = 0.00054
    config.consistency.least_weight = 0.0
    config.consistency.unquantised = 0.0  # share of crops, where model.bottleneck is 'fsq'
    config.consistency.auxiliary = ConfigDict({'weight': 0.0, 'end': 0.5})  # 0: as in the paper

    config.optimizer = ConfigDict()
    config.optimizer.name = 'radam'  # or adamw, with a weight_decay
    config.optimizer.learning_rate = 1e-4
    config.optimizer.final_learning_rate = 1e-6
    config.optimizer.warmup_steps = 10_000
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.ema_decay = 0.9999
    config.optimizer.clip_norm = 0.0  # 0: no clipping
    config.optimizer.ema_profiles = ()  # or (0.05, 0.1), for averages chosen after the run

    config.data = ConfigDict()
    config.data.path = ''  # folders or files, commas between, or a prepared dataset
    config.data.mix = ()  # or several: (('music', '/data/music', 0.7), ('speech', ...))
    config.data.resident = False  # or the whole corpus in device memory
    config.data.batch_size = 16  # over all devices of all hosts
    config.data.crop_frames = 64  # 34,304 samples, 0.78 s
    config.data.min_rms = 0.001
    config.data.representation = 'spectrogram'  # or 'waveform': the STFT runs in the step
    config.data.workers = 8
    config.data.prefetch = 4

    config.train = ConfigDict()
    config.train.steps = 800_000
    config.train.log_every = 100
    config.train.checkpoint_every = 10_000
    config.train.keep_checkpoints = 3
    config.train.accumulate = 1
    config.train.stop_after_skipped = 10
    config.train.best_metric = 'mr_stft'
    config.train.shard_optimizer = False  # or each device keeps its part of moments and average

    config.evaluation = ConfigDict()
    config.evaluation.path = ''  # folders or files, commas between; none: no evaluation
    config.evaluation.every = 10_000
    config.evaluation.clips = 16
    config.evaluation.seconds = 10.0
    config.evaluation.media_clips = 4
    config.evaluation.denoising_steps = 1
    return config
