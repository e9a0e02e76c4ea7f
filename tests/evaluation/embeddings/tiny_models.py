"""Small models of other frameworks: a frame is four samples, and twice each its embedding."""

import numpy as np


def save_saved_model(path, rank=1, signature=True):
    import tensorflow as tf

    def embed(audio):
        return module.gain * tf.reshape(audio, [-1, 4])

    module = tf.Module()
    module.gain = tf.Variable(2.0)
    spec = tf.TensorSpec([None] if rank == 1 else [1, None], tf.float32, name='audio')
    module.__call__ = tf.function(embed, input_signature=[spec])
    signatures = {'serving_default': module.__call__.get_concrete_function()} if signature else {}
    tf.saved_model.save(module, str(path), signatures=signatures)


def save_torchscript(path, code='return 2 * audio.reshape(1, -1, 4)'):
    import torch

    # Modules of one class share their methods.
    module = type(f'Tiny{abs(hash(code))}', (torch.jit.ScriptModule,), {})()
    module.define(f'def forward(self, audio):\n    {code}\n')
    module.save(str(path))


def save_onnx(path, rank=2, shape=(1, -1, 4)):
    """Doubles its input and reshapes it, in the few fields of ONNX's protobuf that this needs."""
    nodes = [
        _text(1, 'audio') + _text(1, 'audio') + _text(2, 'twice') + _text(4, 'Add'),
        _text(1, 'twice') + _text(1, 'shape') + _text(2, 'frames') + _text(4, 'Reshape'),
    ]
    values = np.array(shape, '<i8')
    constant = _number(1, len(values)) + _number(2, 7) + _text(8, 'shape')
    constant += _field(9, values.tobytes())
    axes = [_field(1, _number(1, 1))] * (rank - 1) + [_field(1, _text(2, 'samples'))]
    outward = [_field(1, _text(2, f'axis_{axis}')) for axis in range(len(shape))]
    graph = b''.join(_field(1, node) for node in nodes) + _text(2, 'tiny') + _field(5, constant)
    graph += _field(11, _tensor('audio', axes)) + _field(12, _tensor('frames', outward))
    opset = _number(2, 13)
    path.write_bytes(_number(1, 8) + _field(7, graph) + _field(8, opset))


def _tensor(name, axes):
    """A ValueInfo of float32."""
    return _text(1, name) + _field(2, _field(1, _number(1, 1) + _field(2, b''.join(axes))))


def _text(number, text):
    return _field(number, text.encode())


def _field(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number, value):
    return _varint(number << 3) + _varint(value)


def _varint(value):
    rest = b''
    while value > 127:
        rest, value = rest + bytes([value & 127 | 128]), value >> 7
    return rest + bytes([value])
