"""A training that compiles in seconds, for tests of everything but the model."""

from m2l_jax.configs import demo


def make_config(path, resident=False):
    """The demo config with two levels of few bins and no attention, for six steps."""
    config = demo.get_config()
    config.init_from = ''
    config.model.update(
        base_channels=4,
        channel_multipliers=(1, 2),
        downsampling=((2, 2),),
        attention=(False, False),
        unet_blocks=1,
        bottleneck_channels=8,
        bottleneck_blocks=1,
        latent_channels=4,
        embedding_channels=8,
        spectrogram={'window': 256, 'hop': 64},
    )
    config.data.update(path=str(path), batch_size=8, crop_frames=8, resident=resident)
    config.optimizer.warmup_steps = 2
    config.train.update(steps=6, log_every=2, checkpoint_every=3)
    return config.lock()


def get_config(path):
    """For commands: `--config=tests/small_training.py:FOLDER`."""
    return make_config(path)
