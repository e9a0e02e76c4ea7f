"""Measures how much of labels a shallow probe finds in a model's frozen features.

    python -m m2l_jax.probe --checkpoint=DIR --data=labels.csv --task=genre --output=out
    python -m m2l_jax.probe --checkpoint=DIR --data=mirdata:tinysol --data_home=/data/tinysol \
        --task=instrument,pitch --output=out
    python -m m2l_jax.probe --checkpoint=DIR --data=tfds:nsynth --limit=20000 \
        --task=pitch --probe=mlp --seeds=5 --output=out

Encodes each clip once, as mono, and pools latents and the features before the bottleneck over time.
On these it trains a probe for each task, chosen on the validation split, and prints its scores on
the test split with their intervals of 95 % (bootstrap over test clips), beside those of the same
model untrained, of mel spectrograms, and of the training split's frequencies alone.

Tasks: `tagging` (any number of labels a clip: ROC-AUC and average precision, means over tags),
`key` (MIREX's weighted score), `instrument`, `pitch`, `pitch_class`, `genre` and `classification`
(accuracy). `TASK:FIELD` names the column, attribute or feature of the labels.

A CSV has the columns `path`, relative to its folder, `label` or the task's name, and, if wanted,
`split` (train, validation, test, or a fold's number) and `group` (of clips that stay together).
Without splits, 60, 20 and 20 % are drawn. The folder gets `report.json` and `predictions.csv`.
"""

from absl import flags

from m2l_jax.interface import command

_CHECKPOINT = command.define_checkpoint()
_DATA = flags.DEFINE_string(
    'data',
    None,
    "Labelled clips: a CSV file, 'mirdata:NAME', 'tfds:NAME', or the folder of a TFDS dataset.",
)
_DATA_HOME = flags.DEFINE_string(
    'data_home', None, "Folder of a data set of mirdata; mirdata's default if not given."
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for report and predictions.')
_TASK = flags.DEFINE_list(
    'task',
    None,
    'Tasks: tagging, key, instrument, pitch, pitch_class, genre or classification, '
    'or TASK:FIELD for labels of another name.',
)
_FEATURES = flags.DEFINE_list(
    'features', ['latents', 'features'], 'Of the model: latents, features before the bottleneck.'
)
_BASELINES = flags.DEFINE_bool(
    'baselines', True, 'Probe the untrained model and mel spectrograms too.'
)
_POOLING = flags.DEFINE_enum(
    'pooling', 'mean_std', ['mean_std', 'mean'], 'Over time: mean and deviation, or the mean.'
)
_PROBE = flags.DEFINE_enum(
    'probe', 'linear', ['linear', 'mlp'], 'Linear, or with one hidden layer of 256.'
)
_SEED = command.define_seed('Of drawn splits, of the untrained model, and of the first probe.')
_SEEDS = flags.DEFINE_integer('seeds', 1, 'Probes, each of another seed.', lower_bound=1)
_FOLD = flags.DEFINE_integer(
    'fold', 0, 'Fold to test, of data sets with folds; the next one validates.', lower_bound=0
)
_LIMIT = flags.DEFINE_integer(
    'limit', 0, 'Clips to draw of a larger data set; 0 for all.', lower_bound=0
)
flags.mark_flags_as_required(['checkpoint', 'data', 'output', 'task'])


def main() -> None:
    """Parses the flags, writes the report, and prints the scores."""
    from m2l_jax.codec.compile_cache import use_compile_cache
    from m2l_jax.probing.report import describe_report, probe

    use_compile_cache()
    report = probe(
        _CHECKPOINT.value,
        _DATA.value,
        _OUTPUT.value,
        tasks=_TASK.value,
        data_home=_DATA_HOME.value,
        representations=_FEATURES.value,
        baselines=_BASELINES.value,
        pooling=_POOLING.value,
        kind=_PROBE.value,
        seed=_SEED.value,
        seeds=_SEEDS.value,
        fold=_FOLD.value,
        limit=_LIMIT.value,
    )
    print(describe_report(report))


if __name__ == '__main__':
    command.run(main)
