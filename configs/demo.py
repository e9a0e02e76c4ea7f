"""A model small enough to train on two CPU cores in minutes, with every part of the big one.

    python -m m2l_jax.train --config=configs/demo.py --workdir=DIR

802,538 parameters; trains on the bundled music unless `--config.data.path=FOLDER` names another.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Sizes and steps, and what must go with so few of them.

    That is a faster optimiser and average, higher noise levels, from which decoding starts, and a
    teacher that stays farther from the student. At first (Δ = 1) the teacher is the clean crop
    itself; at the recipe's last Δ, 0.001, what it knows would take 1000 steps from the lowest noise
    level to the highest.
    """
    config = default.get_config()
    config.model.update(
        base_channels=4,
        channel_multipliers=(1, 4, 8, 8, 8),
        attention_heads=2,
        unet_blocks=1,
        bottleneck_channels=64,
        bottleneck_blocks=2,
        embedding_channels=64,
        dtype='float32',
    )
    config.consistency.density.log_sigma_mean = 1.0
    config.consistency.schedule.update(start_exponent=0.0, end_exponent=1.0)
    config.optimizer.update(learning_rate=3e-3, warmup_steps=40, b2=0.99, ema_decay=0.99)
    config.data.update(path='m2l_jax/assets/train', batch_size=4, crop_frames=16, workers=2)
    config.train.update(steps=360, log_every=20, checkpoint_every=180)
    return config
