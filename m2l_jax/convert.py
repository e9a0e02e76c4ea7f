"""Converts a model between this project's checkpoints and PyTorch's files, both ways.

    python -m m2l_jax.convert --from=music2latent.pt --to=DIR          an Orbax checkpoint
    python -m m2l_jax.convert --from=DIR --to=model.pt                 for the PyTorch package
    python -m m2l_jax.convert --from=DIR --to=model.safetensors        the same tensors, no pickle

Of a training run the averaged parameters of the newest checkpoint are converted.
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_FROM = flags.DEFINE_string('from', None, 'Folder with checkpoints, or .pt or .safetensors file.')
_TO = flags.DEFINE_string('to', None, 'Folder, or .pt or .safetensors file, to write.')
_HEADS = flags.DEFINE_integer(
    'attention_heads',
    None,
    'Of a PyTorch file that this project did not write; its shapes do not tell. 4 if not given.',
    lower_bound=1,
)
# Taken for a slip, and not for the name of a folder.
_OTHER_SUFFIXES = ('.pth', '.bin', '.ckpt', '.h5', '.msgpack', '.npz', '.onnx')

flags.mark_flags_as_required(['from', 'to'])


def main() -> None:
    """Parses the flags and prints what was converted."""
    import jax

    from m2l_jax.checkpoint.store import save_model
    from m2l_jax.codec.weights import open_weights
    from m2l_jax.interface.errors import InputError
    from m2l_jax.interface.paths import make_folder
    from m2l_jax.torch_weights import files
    from m2l_jax.torch_weights.conversion import save_torch_model

    target = pathlib.Path(_TO.value)
    if target.exists() and (target.is_file() or target.suffix in files.SUFFIXES):
        raise InputError(f'{target} exists already: remove it or choose another name')
    if target.suffix in _OTHER_SUFFIXES:
        raise InputError(f'{target}: weights are written to {" or ".join(files.SUFFIXES)} files')
    model, params = open_weights(_FROM.value, _HEADS.value)
    if target.suffix in files.SUFFIXES:
        save_torch_model(target, model.config, params)
    else:
        save_model(make_folder(target), model.config, params)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f'{_FROM.value} -> {target}: {size:,} parameters')


if __name__ == '__main__':
    command.run(main)
