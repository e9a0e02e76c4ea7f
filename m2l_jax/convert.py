"""Converts a model between this project's checkpoints and PyTorch's files, both ways.

    python -m m2l_jax.convert --from=music2latent.pt --to=DIR          an Orbax checkpoint
    python -m m2l_jax.convert --from=DIR --to=model.pt                 for the PyTorch package
    python -m m2l_jax.convert --from=DIR --to=model.safetensors        the same tensors, no pickle
    python -m m2l_jax.convert --from=DIR --to=small.safetensors --storage=float16   half the size

Of a training run the averaged parameters of the newest checkpoint are converted.
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_FROM = flags.DEFINE_string(
    'from', None, 'Folder with checkpoints, .pt or .safetensors file, or a packaged model: small.'
)
_TO = flags.DEFINE_string('to', None, 'Folder, or .pt or .safetensors file, to write.')
_HEADS = flags.DEFINE_integer(
    'attention_heads',
    None,
    'Of a PyTorch file that this project did not write; its shapes do not tell. 4 if not given.',
    lower_bound=1,
)
_STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16'], 'Of the numbers in a .pt or .safetensors file.'
)
_MOST = command.define_finite_float(
    'most_megabytes', None, 'Write no larger .pt or .safetensors file.'
)
# Taken for a slip, and not for the name of a folder.
_OTHER_SUFFIXES = ('.pth', '.bin', '.ckpt', '.h5', '.msgpack', '.npz', '.onnx')

flags.mark_flags_as_required(['from', 'to'])


def main() -> None:
    """Parses the flags and prints what was converted."""
    import jax

    from m2l_jax.checkpoint.store import save_model
    from m2l_jax.codec.weights import open_weights
    from m2l_jax.torch_weights import files
    from m2l_jax.torch_weights.conversion import save_torch_model

    target = pathlib.Path(_TO.value)
    _check_target(target, files.SUFFIXES)
    model, params = open_weights(_FROM.value, _HEADS.value)
    if target.suffix in files.SUFFIXES:
        most = None if _MOST.value is None else int(_MOST.value * 1e6)
        save_torch_model(target, model.config, params, storage=_STORAGE.value, most_bytes=most)
    else:
        save_model(target, model.config, params)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f'{_FROM.value} -> {target}: {size:,} parameters')


def _check_target(target: pathlib.Path, suffixes: tuple[str, ...]) -> None:
    """Refuses what cannot be written, before anything is read."""
    from m2l_jax.interface.errors import InputError

    kinds = f'{" or ".join(suffixes)} files'
    if target.exists() and (target.is_file() or target.suffix in suffixes):
        raise InputError(f'{target} exists already: remove it or choose another name')
    if target.suffix in _OTHER_SUFFIXES:
        raise InputError(f'{target}: weights are written to {kinds}')
    if target.suffix not in suffixes and (_STORAGE.value != 'float32' or _MOST.value is not None):
        raise InputError(f'{target}: --storage and --most_megabytes are for {kinds}')


if __name__ == '__main__':
    command.run(main)
