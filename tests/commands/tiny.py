"""Overrides of a training's config that let a command compile in seconds."""

FLAGS = (
    '--config.init_from=',
    '--config.train.steps=3',
    '--config.train.checkpoint_every=2',
    '--config.train.log_every=1',
    '--config.optimizer.warmup_steps=1',
    '--config.data.batch_size=2',
    '--config.data.crop_frames=8',
    '--config.model.base_channels=4',
    '--config.model.channel_multipliers=(1, 1, 1)',
    '--config.model.downsampling=((4, 1), (4, 1))',
    '--config.model.attention=(False, False, True)',
    '--config.model.attention_heads=1',
    '--config.model.encoder_blocks=1',
    '--config.model.decoder_blocks=1',
    '--config.model.unet_blocks=1',
    '--config.model.bottleneck_blocks=1',
)
