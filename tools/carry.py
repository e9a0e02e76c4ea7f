"""Carries a training run to a machine that does not see this one's disks.

    python -m tools.carry --from=/runs/first --to=parts       here
    python -m tools.carry --from=parts --to=/runs/first       there

The first packs the newest checkpoint and the curves into files of a limited size, with checksums.
The second makes a training run's folder of them, which `m2l_jax.train` continues. --form=exact
takes 16 bytes a parameter (parameters, average, two moments), and training continues to the last
bit. --form=light takes 2 (the average in float16): training continues from the average, RAdam's
moments begin anew, and steps, crops and schedules go on. Runs from a checkout, without an install.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
import safetensors.numpy
from absl import flags

from m2l_jax.checkpoint.store import CheckpointStore, new_store
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, replaced_file, to_json, write_json
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.conversion import to_float16
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.curves import EventFile, read_curves
from m2l_jax.training.state import (
    TrainState,
    make_optimizer,
    param_shapes,
    start_from,
    to_trees,
)

_FROM = flags.DEFINE_string('from', None, "A training run's folder, or one that this has written.")
_TO = flags.DEFINE_string('to', None, 'The folder to write.')
_FORM = flags.DEFINE_enum('form', 'exact', ['exact', 'light'], 'How much of the state to pack.')
_MEGABYTES = command.define_finite_float(
    'part_megabytes', 1000.0, 'Of each file at most, 10^6 bytes.', lower_bound=0.001
)

MANIFEST = 'manifest.json'

_AVERAGE = 'ema_params/'
_CURVES = 'curves'
_CARRIED = '.carried'
_SUFFIX = '.part'


def main() -> None:
    """Packs a run or unpacks one, by what --from holds."""
    source = pathlib.Path(_FROM.value)
    if (source / MANIFEST).exists():
        content, about = read_parts(source)
        unpack(content, about, _TO.value)
        print(f'{source} -> {_TO.value}: step {about["step"]}, {about["form"]}')
        return
    with new_folder(_TO.value) as target:
        content, about = pack(_FROM.value, _FORM.value)
        paths = write_parts(target, content, int(_MEGABYTES.value * 1e6), about)
    size = sum(path.stat().st_size for path in paths)
    print(f'{source} -> {target}: step {about["step"]}, {size / 1e6:.1f} MB in {len(paths)} files')


def pack(workdir: str | os.PathLike[str], form: str) -> tuple[bytes, dict[str, Any]]:
    """Packs the newest checkpoint and the curves of a training run, without audio and pictures.

    Args:
      workdir: the run's folder.
      form: 'exact' or 'light'.

    Returns:
      The content of a safetensors file, and what else `unpack` needs, for JSON.

    Raises:
      InputError: if there is no complete state, or float16 cannot hold the average.
    """
    folder = pathlib.Path(workdir)
    if not (folder / 'checkpoints').is_dir():
        raise InputError(f'{workdir} holds no checkpoints: pass the --workdir of a training run')
    with contextlib.closing(CheckpointStore(folder)) as store:
        step = store.latest_step()
        if step is None or not store.has_state(step):
            raise InputError(f'{workdir} holds no complete checkpoint that training can go on from')
        config = store.read_config(step)
        shapes = _state_shapes(config, f'{workdir}: config')
        stand_ins = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),  # no memory
            shapes,
        )
        without_average, average = store.restore(
            step, stand_ins.replace(ema_params=None), stand_ins.ema_params
        )
    kept = _named(_kept(without_average.replace(ema_params=average), form))
    if form == 'light':
        large = {name: kept[name] for name in kept if name.startswith(_AVERAGE)}
        kept |= to_float16(large, remedy='pack the run in the form exact')
    kept[_CURVES] = np.frombuffer(to_json(read_curves(folder), None).encode(), np.uint8)
    return safetensors.numpy.save(kept), {'form': form, 'step': step, 'config': config}


def unpack(content: bytes, about: dict[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Makes the folder of a training run, which the same config continues.

    Args:
      content, about: what `pack` returned.
      workdir: the folder, without checkpoints; made if missing.

    Raises:
      InputError: if it holds checkpoints, or another version packed the content.
    """
    arrays = safetensors.numpy.load(content)
    state = _complete(arrays, about['form'], _state_shapes(about['config'], 'what is carried'))
    curves = json.loads(arrays[_CURVES].tobytes())
    with new_folder(workdir) as folder, _written(folder, curves), new_store(folder) as store:
        average = state.ema_params
        store.save(about['step'], state.replace(ema_params=None), average, about['config'])


@contextlib.contextmanager
def _written(folder: pathlib.Path, curves: dict[str, dict[str, float | None]]) -> Iterator[None]:
    """Writes the curves to a TensorBoard file, and removes it after an error."""
    before = set(folder.glob(f'*{_CARRIED}'))
    try:
        with contextlib.closing(EventFile(folder, _CARRIED)) as events:
            for name, curve in curves.items():
                for step, value in curve.items():
                    events.add_scalars(int(step), {name: math.nan if value is None else value})
        yield
    except BaseException:
        for path in set(folder.glob(f'*{_CARRIED}')) - before:
            path.unlink()
        raise


def _state_shapes(config: dict[str, Any], where: str) -> TrainState:
    """Shapes and types of the training state for a stored config."""
    settings = build(
        TrainingConfig, {name: config[name] for name in config if name != 'corpus'}, where
    )
    shapes = param_shapes(Music2Latent(settings.model))
    optimizer = make_optimizer(settings.optimizer, settings.train.steps, shapes)
    return jax.eval_shape(lambda params: to_trees(start_from(params, optimizer), shapes), shapes)


def _kept(state: TrainState, form: str) -> TrainState:
    """The part of a state that is carried, with None for the rest."""
    if form == 'exact':
        return state
    opt_state = jax.tree.map(
        lambda node: None if _has_moments(node) else node, state.opt_state, is_leaf=_has_moments
    )
    return state.replace(params=None, opt_state=opt_state)


def _complete(arrays: dict[str, np.ndarray], form: str, shapes: TrainState) -> TrainState:
    """Inverse of `_kept`: fills in fresh moments and the average as parameters."""

    def fill(path: Any, leaf: Any) -> np.ndarray:
        array = arrays.get(_name(path))
        if array is None or array.shape != leaf.shape:
            raise InputError(
                f'what is carried has no {_name(path)} of shape {leaf.shape}: it was packed by '
                'another version of m2l_jax'
            )
        return array.astype(leaf.dtype)

    state = jax.tree_util.tree_map_with_path(fill, _kept(shapes, form))
    if form == 'exact':
        return state
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    opt_state = jax.tree.map(
        lambda node, kept: node if _has_moments(node) else kept,
        zeros,
        state.opt_state,
        is_leaf=_has_moments,
    )
    return state.replace(params=state.ema_params, opt_state=opt_state)


def _has_moments(node: Any) -> bool:
    """True for the node of the optimiser's state that holds RAdam's moments and their count."""
    return isinstance(node, optax.ScaleByAdamState)


def _named(state: TrainState) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='/')


def write_parts(
    folder: str | os.PathLike[str], content: bytes, part_bytes: int, about: Mapping[str, Any]
) -> list[pathlib.Path]:
    """Writes `content` in parts, then the manifest, and removes an earlier manifest's parts.

    Args:
      folder: made if missing; other files in it stay.
      content: what to write.
      part_bytes: the largest size of a part.
      about: further fields of the manifest.

    Returns:
      The files.

    Raises:
      InputError: if they cannot be written; earlier parts are still whole then.
    """
    folder = pathlib.Path(folder)
    before = _named_parts(folder)
    parts = []
    try:
        for number, begin in enumerate(range(0, len(content), part_bytes)):
            part = content[begin : begin + part_bytes]
            digest = hashlib.sha256(part).hexdigest()
            # Named by content, so no part replaces one that the old manifest names.
            path = folder / f'{number}-{digest[:12]}{_SUFFIX}'
            with replaced_file(path) as partial:
                partial.write_bytes(part)
            parts.append({'name': path.name, 'bytes': len(part), 'sha256': digest})
        write_json(folder / MANIFEST, {**about, 'parts': parts})
    except BaseException:
        # A signal may have come after the new manifest was written.
        _remove(folder, {part['name'] for part in parts} - before - _named_parts(folder))
        raise
    _remove(folder, before - {part['name'] for part in parts})
    return [*(folder / part['name'] for part in parts), folder / MANIFEST]


def read_parts(folder: str | os.PathLike[str]) -> tuple[bytes, dict[str, Any]]:
    """Reads the content and the manifest that `write_parts` wrote.

    Raises:
      InputError: if manifest or parts are missing or damaged; it names the file.
    """
    folder = pathlib.Path(folder)
    manifest = _read_manifest(folder / MANIFEST)
    return b''.join(_read_part(folder, part) for part in manifest['parts']), manifest


def _remove(folder: pathlib.Path, names: set[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def _named_parts(folder: pathlib.Path) -> set[str]:
    """Names of the parts in the folder's manifest, if there is one."""
    try:
        return {part['name'] for part in _read_manifest(folder / MANIFEST)['parts']}
    except InputError:
        return set()


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
        for part in manifest['parts']:
            if pathlib.Path(part['name']).name != part['name'] or not part['sha256']:
                raise ValueError
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: pass the folder that holds it') from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f'{path} is damaged: copy it again') from None
    return manifest


def _read_part(folder: pathlib.Path, part: Mapping[str, Any]) -> bytes:
    path = folder / part['name']
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f'{path} cannot be read ({error.strerror}): all parts that {MANIFEST} names must be '
            'in the folder'
        ) from None
    if hashlib.sha256(content).hexdigest() != part['sha256']:
        raise InputError(f'{path} is damaged ({len(content)} bytes): copy it again')
    return content


if __name__ == '__main__':
    flags.mark_flags_as_required(['from', 'to'])
    command.run(main)
