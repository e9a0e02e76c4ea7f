"""A model small enough to train on a laptop's CPU in minutes, with every part of the big one."""

from configs import default


def get_config():
    """Sizes and steps; everything else is the paper's."""
    config = default.get_config()
    config.model.update(
        base_channels=8,
        channel_multipliers=(1, 2, 4, 8, 8),
        unet_blocks=1,
        bottleneck_channels=64,
        bottleneck_blocks=2,
        embedding_channels=64,
        dtype='float32',
    )
    config.optimizer.update(learning_rate=2e-3, warmup_steps=20, ema_decay=0.99)
    config.data.update(path='m2l_jax/assets/train', batch_size=8, workers=2)
    config.train.update(steps=400, log_every=10, checkpoint_every=100)
    return config
