"""What a corpus job is to those who run it, and how one shard of it is completed."""

from collections.abc import Callable
from typing import Protocol

from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Shard
from m2l_jax.corpus.summary import ShardSummary
from m2l_jax.interface.errors import InputError, Interrupted

# In one worker: while one shard is computed, another is read or written.
SHARDS_AT_ONCE = 2


class Worker(Protocol):
    """What works on shards, in the process where it was made."""

    def work(self, shard: Shard, tell: Callable[[float], None]) -> ShardSummary:
        """Writes the outputs of a shard; threads may call it at once for several.

        Args:
          shard: what to work on.
          tell: to be called with the seconds of audio done since the last call. It raises
            Interrupted where the shard is to be dropped, which must be let through.

        Raises:
          InputError, OSError: if no shard can be worked on, for want of space or permission. What
            is wrong with one file is in the summary.
        """


class Job(Protocol):
    """What to do with shards; picklable, for it travels to where they are worked on."""

    def open(self) -> Worker:
        """Loads what the work needs.

        Raises:
          InputError: if it cannot be loaded.
        """


def complete(
    worker: Worker,
    shard: Shard,
    ledger: Ledger,
    tell: Callable[[float], None],
    is_stopped: Callable[[], bool],
) -> ShardSummary:
    """Works on a shard and commits it.

    Args:
      tell: is passed the seconds of audio that the worker tells of.
      is_stopped: whether the shard is to be dropped; asked whenever the worker tells of audio.

    Raises:
      InputError: what ended the work, and that the same command goes on.
      Interrupted: if the shard was dropped.
    """

    def tell_or_stop(seconds: float) -> None:
        if is_stopped():
            raise Interrupted(f'shard {shard.number} is dropped')
        tell(seconds)

    try:
        summary = worker.work(shard, tell_or_stop)
        ledger.commit(summary)
    except (InputError, OSError) as error:
        raise InputError(
            f'{_describe(error)}; what is complete is kept: put this right, and run the same '
            'command again'
        ) from None
    return summary


def stopped(missing: int, total: int) -> Interrupted:
    """What ends a run that was asked to stop, with so many shards missing."""
    return Interrupted(
        f'stopped with {total - missing} of {total} shards done: run the same command again, and '
        'it goes on from there'
    )


def _describe(error: InputError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.filename}: {error.strerror}'
    return str(error)
