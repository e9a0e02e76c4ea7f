"""Agreement of notes, which basic-pitch's model finds in original and estimate."""

import functools
import importlib.util
import pathlib
from typing import Any, NamedTuple

import numpy as np
import soxr

from m2l_jax.evaluation.perception.packages import EXTRA, Package

NEEDS = (
    Package('onnxruntime', EXTRA),
    Package('mir_eval', EXTRA),
    # Its other dependencies are of old versions, and not needed for its model.
    Package('basic_pitch', 'pip install --no-deps basic-pitch==0.4.0'),
)
_MODEL = pathlib.Path('saved_models', 'icassp_2022', 'nmp.onnx')

# Of the model (Bittner et al. 2022).
_RATE, _HOP, _WINDOW = 22_050, 256, 43_844
_PITCHES = 27.5 * 2 ** (np.arange(88) / 12)  # Hz
_INPUT = 'serving_default_input_2:0'
_NOTES, _ONSETS = 'StatefulPartitionedCall:1', 'StatefulPartitionedCall:2'

# A window gives 172 frames. Those near its ends are left out, as they lack context, and windows
# overlap so that the others have the grid of the hops.
_FIRST_FRAME, _FRAMES = 15, 141

# As in basic-pitch: a likely onset, a likely note, and the shortest note, 0.13 s.
_ONSET, _SOUNDING, _LEAST_FRAMES = 0.5, 0.3, 11
_TOLERANCE_SECONDS, _TOLERANCE_CENTS = 0.05, 50


class Notes(NamedTuple):
    """Notes: `onsets` in seconds and `pitches` in Hz, `[N]` both, in order of time."""

    onsets: np.ndarray
    pitches: np.ndarray


def note_agreement(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """F-measure of the estimate's notes, with the original's as reference; higher is better.

    A note is found if the estimate has one of the same pitch, within 50 cents, that begins within
    50 ms of it; each counts once, and its end does not matter (`mir_eval.transcription`). Notes of
    both come from `find_notes`: the metric compares transcriptions, errors included.

    Args:
      original, estimate: `[channels, samples]`, the same shape.
      sample_rate: in Hz.

    Returns:
      A figure from 0 to 1; nan if the original has no notes.
    """
    reference = find_notes(original, sample_rate)
    if not reference.onsets.size:
        return float('nan')
    return f_measure(reference, find_notes(estimate, sample_rate))


def f_measure(reference: Notes, estimate: Notes) -> float:
    """Harmonic mean of precision and recall, see `note_agreement`; 0 for an estimate of no notes.

    Args:
      reference: at least one note.
      estimate: any number of notes.
    """
    from mir_eval import transcription

    if not estimate.onsets.size:
        return 0.0
    # The ends only need to come after the onsets.
    spans = [np.stack([notes.onsets, notes.onsets + 1], axis=1) for notes in (reference, estimate)]
    return float(
        transcription.precision_recall_f1_overlap(
            spans[0],
            reference.pitches,
            spans[1],
            estimate.pitches,
            onset_tolerance=_TOLERANCE_SECONDS,
            pitch_tolerance=_TOLERANCE_CENTS,
            offset_ratio=None,
        )[2]
    )


def find_notes(waveform: np.ndarray, sample_rate: int) -> Notes:
    """Transcribes the mean of the channels by basic-pitch's model (Bittner et al. 2022).

    The model gives, every 11.6 ms and for each key of the piano, the probabilities that a note
    sounds and that one begins. A note begins where the latter has a peak in time of 0.5 at least,
    the former is 0.3 at least on average over the next 0.13 s, and the key begins no other note in
    that time.

    Args:
      waveform: `[channels, samples]`.
      sample_rate: in Hz.
    """
    mixed = np.mean(waveform, axis=0)
    sounding, onsets = _probabilities(soxr.resample(mixed, sample_rate, _RATE))
    before, after = np.roll(onsets, 1, axis=0), np.roll(onsets, -1, axis=0)
    before[0] = after[-1] = 0
    peaks = (onsets >= _ONSET) & (onsets > before) & (onsets >= after)
    kept = peaks & (_sum_ahead(sounding) >= _SOUNDING * _LEAST_FRAMES)
    frames, keys = np.nonzero(kept & (_sum_ahead(kept) == 1))
    return Notes(frames * _HOP / _RATE, _PITCHES[keys])


def _sum_ahead(values: np.ndarray) -> np.ndarray:
    """Sums `[T, 88]` over each frame and those after it that the shortest note has."""
    padded = np.pad(values, ((0, _LEAST_FRAMES - 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, _LEAST_FRAMES, axis=0).sum(axis=-1)


def _probabilities(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """That notes sound and begin, `[T, 88]` each, of `[samples]` at 22,050 Hz, a frame a hop."""
    session, frames = _session(), 1 + len(waveform) // _HOP
    padded = np.pad(waveform.astype(np.float32), (_FIRST_FRAME * _HOP, _WINDOW))
    parts = []
    for first in range(0, frames, _FRAMES):
        window = padded[first * _HOP :][:_WINDOW]
        outputs = session.run([_NOTES, _ONSETS], {_INPUT: window[None, :, None]})
        parts.append(np.stack(outputs)[:, 0, _FIRST_FRAME : _FIRST_FRAME + _FRAMES])
    sounding, onsets = np.concatenate(parts, axis=1)[:, :frames]
    return sounding, onsets


@functools.cache
def _session() -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors: it warns of devices that it does not find
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The package itself is not imported: that takes its dependencies.
    folder = importlib.util.find_spec('basic_pitch').submodule_search_locations[0]
    path = pathlib.Path(folder) / _MODEL
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
