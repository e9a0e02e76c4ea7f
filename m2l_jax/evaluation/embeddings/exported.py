"""Embeddings by models that users bring: a SavedModel, an ONNX or a TorchScript file."""

import contextlib
import os
from collections.abc import Callable, Sequence

import numpy as np

from m2l_jax.interface.errors import InputError, first_line

# A model's outputs for `[samples]` or `[1, samples]`, and the ranks of its input to try.
Runner = tuple[Callable[[np.ndarray], Sequence[np.ndarray]], Sequence[int]]


class ExportedModel:
    """A model of another framework.

    Its input is mono audio, float32, `[samples]` or `[1, samples]`; of a TorchScript file and of a
    SavedModel without the signature `serving_default`, the one that it takes, the latter tried
    first. Its one output is `[frames, width]`, `[1, frames, width]` or `[width]`.

    Args:
      path: folder of a SavedModel, `.onnx` file, or TorchScript file of any other suffix.

    Raises:
      InputError: if it is none of these, or the package that reads it is missing.
    """

    def __init__(self, path: str):
        self._path, self._width = path, None
        if not os.path.exists(path):
            raise InputError(f'{path} is not there: embeddings are of a model, PATH:RATE')
        try:
            self._run, self._ranks = _open(path)
        except InputError:
            raise
        except ImportError as error:
            raise InputError(f'{path} needs a package: pip install {error.name}') from error
        except Exception as error:  # each framework has its own
            raise InputError(f'{path} cannot be read: {first_line(error)}') from error

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Embeds `[samples]`, float32: `[frames, width]`.

        Raises:
          InputError: if the model refuses the audio, or its output is of other shape or not finite.
        """
        frames = self._frames(self._outputs(waveform))
        width = frames.shape[1]
        if self._width not in (None, width):
            raise InputError(f'{self._path} gives {self._width} numbers a frame, then {width}')
        self._width = width
        return frames

    def _outputs(self, waveform: np.ndarray) -> Sequence[np.ndarray]:
        for rank in self._ranks:
            try:
                return self._run(waveform if rank == 1 else waveform[None])
            except Exception as error:
                refusal = error
        raise InputError(f'{self._path} refuses audio: {first_line(refusal)}') from refusal

    def _frames(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        if len(outputs) != 1:
            raise InputError(f'{self._path} has {len(outputs)} outputs: export it with one')
        output = np.asarray(outputs[0])
        frames = output[None] if output.ndim == 1 else output
        frames = frames[0] if frames.ndim == 3 and len(frames) == 1 else frames
        if frames.ndim != 2 or not frames.size or frames.dtype.kind not in 'fiu':
            raise InputError(
                f'{self._path} gives {output.dtype} of shape {list(output.shape)}: wanted are '
                '[frames, width], [1, frames, width] or [width]'
            )
        frames = frames.astype(np.float32)
        if not np.all(np.isfinite(frames)):
            raise InputError(f'{self._path} gives embeddings that are not finite')
        return frames


def _open(path: str) -> Runner:
    if os.path.isdir(path):
        return _open_saved_model(path)
    return _open_onnx(path) if path.endswith('.onnx') else _open_torchscript(path)


def _open_saved_model(path: str) -> Runner:
    import tensorflow as tf  # takes seconds

    with contextlib.suppress(RuntimeError):  # the caller's TensorFlow may be in use
        tf.config.set_visible_devices([], 'GPU')  # whose memory JAX needs
    model = tf.saved_model.load(path)
    signature = getattr(model, 'signatures', {}).get('serving_default')
    if signature is None and not callable(model):
        raise InputError(f'{path} has no signature serving_default, and is not callable')
    name, ranks = None, (2, 1)
    if signature is not None:
        specs = signature.structured_input_signature[1]
        name = _only(path, list(specs))
        ranks = _ranks(path, specs[name].shape.rank)

    def run(audio: np.ndarray) -> Sequence[np.ndarray]:
        tensor = tf.constant(audio)
        outputs = model(tensor) if signature is None else signature(**{name: tensor})
        return [output.numpy() for output in tf.nest.flatten(outputs)]

    return run, ranks


def _open_onnx(path: str) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    inputs = {each.name: each.shape for each in session.get_inputs()}
    name = _only(path, list(inputs))
    run = lambda audio: session.run(None, {name: audio})  # noqa: E731
    return run, _ranks(path, len(inputs[name]))


def _open_torchscript(path: str) -> Runner:
    import torch

    model = torch.jit.load(path, map_location='cpu').eval()

    def run(audio: np.ndarray) -> Sequence[np.ndarray]:
        try:
            with torch.inference_mode():
                outputs = model(torch.from_numpy(audio))
        except RuntimeError as error:  # the reason is below the model's code
            raise RuntimeError(str(error).strip().rpartition('\n')[2]) from error
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        return [np.asarray(output) for output in outputs]

    return run, (2, 1)


def _only(path: str, inputs: Sequence[str]) -> str:
    if len(inputs) != 1:
        raise InputError(f'{path} has {len(inputs)} inputs: export it with audio alone')
    return inputs[0]


def _ranks(path: str, rank: int | None) -> Sequence[int]:
    if rank not in (None, 1, 2):
        raise InputError(f'{path} takes an input of rank {rank}, not [samples] or [1, samples]')
    return (2, 1) if rank is None else (rank,)
