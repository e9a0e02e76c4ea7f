import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import soundfile

from m2l_jax.training.loop import train_and_evaluate
from m2l_jax.training.state import TrainState
from tests.conftest import make_music
from tests.small_training import make_config
from tests.training.runs import watched


@pytest.fixture(scope='session')
def corpus(music, tmp_path_factory):
    """The music among broken files, which no test changes."""
    folder = shutil.copytree(music, tmp_path_factory.mktemp('corpus') / 'music')
    (folder / 'text.wav').write_text('not audio')
    broken = make_music(3)
    broken[0, ::500] = np.nan
    soundfile.write(folder / 'nan.wav', broken.T, 44_100, subtype='FLOAT')
    return folder


@dataclasses.dataclass
class Run:
    workdir: pathlib.Path
    state: TrainState
    steps: dict[int, dict[str, float]]


@pytest.fixture(scope='session')
def whole(corpus, tmp_path_factory):
    """The small training from its first to its last step."""
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    with watched() as steps:
        state = train_and_evaluate(make_config(corpus), workdir)
    return Run(workdir, state, steps)
