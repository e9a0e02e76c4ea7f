"""Frozen features of clips: of a model and of spectra, pooled over time."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.spectra import HOP, WINDOW, hann, mel_filters, power_blocks
from m2l_jax.interface.errors import InputError
from m2l_jax.probing.examples import Example

LATENTS, FEATURES = REPRESENTATIONS = ('latents', 'features')
UNTRAINED, MEL = 'untrained', 'mel spectrogram'
POOLINGS = ('mean_std', 'mean')

_BATCH_SECONDS = 60  # of audio that is encoded at once
_MOST_ROWS = 16
_MEL_FLOOR = 1e-10  # -100 dB of a full-scale sine

# Of `[B, samples]` waveforms of different lengths, gives `[C, frames]` of each.
Extractor = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Features of clips.

    Attributes:
      features: `[N, C]` by representation, float32, of the clips that could be read.
      numbers: of these clips, `[N]`.
      left_out: the reason for each of the others, by name.
      seconds: of audio in all.
    """

    features: dict[str, np.ndarray]
    numbers: tuple[int, ...]
    left_out: dict[str, str]
    seconds: float


def model_extractor(codec: EncoderDecoder, extract_features: bool) -> Extractor:
    """Encodes to latents, or to the features before the bottleneck.

    Raises, when called, an InputError for a model that gives NaN.
    """

    most = _BATCH_SECONDS * codec.sample_rate

    def extract(waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        fitting = min(_MOST_ROWS, max(1, most // max(map(len, waveforms))))
        rows = 1 << (fitting.bit_length() - 1)  # each number of rows is compiled anew
        encoded = codec.encode_batch(
            waveforms, max_batch_size=rows, extract_features=extract_features
        )
        return [each[0] for each in encoded]

    return extract


def mel_extractor(sample_rate: int) -> Extractor:
    """Logarithms of the power in 80 mel bands, Hann 2048 and hop 512, `[80, frames]` each."""
    window = hann(WINDOW)
    filters = mel_filters(sample_rate) / (window.sum() / 2) ** 2

    def extract(waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            np.concatenate(
                [
                    np.log(np.maximum(block @ filters, _MEL_FLOOR))
                    for block in power_blocks(waveform, window, HOP)
                ]
            ).T
            for waveform in waveforms
        ]

    return extract


def pool(frames: np.ndarray, pooling: str) -> np.ndarray:
    """The mean over time of `[C, frames]`, or mean and standard deviation, `[2·C]`."""
    frames = frames.astype(np.float64)
    mean = np.mean(frames, axis=1)
    both = [mean] if pooling == 'mean' else [mean, np.std(frames, axis=1)]
    return np.concatenate(both).astype(np.float32)


def extract_pooled(
    examples: Sequence[Example],
    extractors: dict[str, Extractor],
    codec: EncoderDecoder,
    pooling: str,
    advance: Callable[[], None],
) -> Pooled:
    """Reads each clip once, mixed down to mono, and pools all representations of it.

    Memory is for a minute of audio, or one longer clip, beside what is pooled.

    Args:
      examples: the clips.
      extractors: by representation.
      codec: gives the sample rate, and the shortest clip.
      pooling: of `POOLINGS`.
      advance: is called for each clip that is done or left out.

    Raises:
      InputError: if no clip can be read.
    """
    rate = codec.sample_rate
    least = max(codec.least_samples, WINDOW)
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in extractors}
    numbers: list[int] = []
    left_out: dict[str, str] = {}
    samples = 0
    read = _read_all(examples, rate, least, left_out, advance)
    for batch in _in_batches(read, _BATCH_SECONDS * rate):
        waveforms = [waveform for _, waveform in batch]
        for name, extract in extractors.items():
            pooled[name] += [pool(frames, pooling) for frames in extract(waveforms)]
        numbers += [number for number, _ in batch]
        samples += sum(map(len, waveforms))
        for _ in batch:
            advance()
    if not numbers:
        raise InputError(f'no clip can be used: {next(iter(left_out.values()))}')
    features = {name: np.stack(rows) for name, rows in pooled.items()}
    return Pooled(features, tuple(numbers), left_out, samples / rate)


def _read_all(
    examples: Sequence[Example],
    rate: int,
    least: int,
    left_out: dict[str, str],
    advance: Callable[[], None],
) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each clip, and its `[samples]`; reasons for others go to `left_out`."""
    for number, example in enumerate(examples):
        try:
            waveform = np.mean(example.read(rate), axis=0)
            if len(waveform) < least:
                raise InputError(
                    f'{example.name} has {len(waveform) / rate:.3f} s, too few for one latent '
                    f'vector: {least / rate:.3f} s at least'
                )
        except InputError as error:
            left_out[example.name] = str(error)
            advance()
            continue
        yield number, waveform


def _in_batches(
    read: Iterator[tuple[int, np.ndarray]], samples: int
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Clips, in order, of about so many samples together."""
    batch: list[tuple[int, np.ndarray]] = []
    held = 0
    for number, waveform in read:
        if batch and held + len(waveform) > samples:
            yield batch
            batch, held = [], 0
        batch.append((number, waveform))
        held += len(waveform)
    if batch:
        yield batch


def extractors_of(
    codec: EncoderDecoder, chosen: Sequence[str], untrained: EncoderDecoder | None
) -> dict[str, Extractor]:
    """The chosen representations of the model, and baselines if there is an untrained one."""
    options = {name: name == FEATURES for name in chosen}
    made = {name: model_extractor(codec, option) for name, option in options.items()}
    if untrained is not None:
        for name, option in options.items():
            made[f'{name}, {UNTRAINED}'] = model_extractor(untrained, option)
        made[MEL] = mel_extractor(codec.sample_rate)
    return made
