"""The training command in a process that is killed once the checkpoint of step 5 is whole."""

import os
import pathlib
import runpy
import signal
import sys

from tests.training.runs import watched
from tests.waiting import wait_until


def kill(step):
    if step == 6:
        (workdir,) = (flag.split('=')[1] for flag in sys.argv if flag.startswith('--workdir='))
        wait_until((pathlib.Path(workdir) / 'checkpoints' / '5').exists)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    with watched(kill):
        runpy.run_module('m2l_jax.train', run_name='__main__', alter_sys=True)
