"""Measures how well models reconstruct audio, beside an untrained model and noise.

    python -m m2l_jax.evaluate --checkpoint=DIR --output=out
    python -m m2l_jax.evaluate --checkpoint=DIR --input=/data/held_out --seconds=10 --output=out
    python -m m2l_jax.evaluate --checkpoint=DIR --against=released,small --seeds=3 --output=out

Cuts each file of --input, the bundled held-out music if not given, into pieces of --seconds. Prints
a table of each model's means with their intervals of 95 % (bootstrap over pieces), and writes
`report.json` with all figures, null where not finite, `clips.csv` with a row for each piece and
model, the first --media pieces as WAV, original and reconstruction, and as pictures, and
`index.html`, a page that plays these pieces and all models' reconstructions, openly and blind.

`untrained` is the same model untrained, on few pieces, and `shaped noise` noise with the average
spectrum of each piece; a trained model must beat both on average. `by_noise_level` shows how much
the latents are used: `latent_gain` is the error with another crop's latents over that with its own.

ViSQOL and the F-measure of notes need more packages: `pip install -e '.[evaluate]'` and
`pip install --no-deps basic-pitch==0.4.0`, whose own dependencies are of old versions. A metric
whose packages are missing is left out and named. --processes compute the figures.

Fréchet and kernel distances are of all pieces, between --embeddings of the originals and those of
the reconstructions, with jackknife intervals; musicnn needs `pip install --no-deps musicnn==0.1.0`.
"""

import pathlib

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = command.define_checkpoint()
_INPUT = flags.DEFINE_string(
    'input',
    str(pathlib.Path(__file__).parent / 'assets' / 'heldout'),
    'Audio file, folder, quoted pattern, list (.txt), or TFDS dataset, also as tfds:NAME[SPLIT]; '
    'several with commas between.',
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for report, audio and pictures.')
_AGAINST = flags.DEFINE_list(
    'against',
    [],
    "Other models to measure: 'released' for the authors' weights (fetched once, CC BY-NC 4.0), "
    'or as --checkpoint.',
)
_SECONDS = command.define_finite_float('seconds', 4.0, 'Of each piece.')
_MEDIA = flags.DEFINE_integer('media', 5, 'Pieces to write as audio and pictures.', lower_bound=0)
_STEPS = flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
_SEED = command.define_seed('Of the decoding noise, and of the untrained model.')
_SEEDS = flags.DEFINE_integer(
    'seeds', 1, 'Decodings of each piece, each from other noise.', lower_bound=1
)
_WEBMUSHRA = flags.DEFINE_bool(
    'webmushra', False, 'Write the pieces of --media as a blind test for webMUSHRA too.'
)
_UNTRAINED = flags.DEFINE_integer(
    'untrained', 5, 'Pieces to measure with the model untrained too.', lower_bound=0
)
_LATENT_GAIN = flags.DEFINE_bool(
    'latent_gain', True, 'Measure errors by noise level too, which takes minutes on a CPU.'
)
_PROCESSES = flags.DEFINE_integer(
    'processes',
    None,
    'Processes that compute figures while models decode; as many as cores if not given.',
    lower_bound=0,
)
_EMBEDDINGS = flags.DEFINE_list(
    'embeddings',
    None,
    'Networks for Fréchet and kernel distances: musicnn, MTT_musicnn, encoder (latents of '
    '--checkpoint), or PATH:RATE, a SavedModel, ONNX or TorchScript file and its sample rate in '
    'Hz. musicnn, where installed, if not given; empty for none.',
)
flags.mark_flags_as_required(['checkpoint', 'output'])


def main() -> None:
    """Parses the flags, writes the report, and prints the means."""
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.evaluation.quality import evaluate
    from m2l_jax.evaluation.reporting.table import describe_report

    use_compile_cache()
    report = evaluate(
        _CHECKPOINT.value,
        _INPUT.value,
        _OUTPUT.value,
        against=_AGAINST.value,
        seconds=_SECONDS.value,
        media=_MEDIA.value,
        denoising_steps=_STEPS.value,
        seed=_SEED.value,
        seeds=_SEEDS.value,
        webmushra=_WEBMUSHRA.value,
        untrained=_UNTRAINED.value,
        latent_gain=_LATENT_GAIN.value,
        processes=_PROCESSES.value,
        embeddings=_EMBEDDINGS.value,
    )
    print(describe_report(report))
    print(f'\nThe report and its files are in {_OUTPUT.value}/')


if __name__ == '__main__':
    command.run(main)
