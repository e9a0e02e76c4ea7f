"""The exceptions that end a command without a stack trace."""


class InputError(ValueError):
    """A mistake in what the user gave: a file, a field, a folder.

    The message is one line that names the file or field and the remedy. Commands print it and exit
    with code 1; library callers catch it as a ``ValueError``.
    """


class Interrupted(Exception):
    """Work that stopped early through no mistake of the user's, and goes on when run again.

    It was asked to stop, or lost another process; the message says which, and what is saved.
    Commands print it and exit with code 75.
    """


def first_line(error: Exception) -> str:
    """The first line of another library's message, or the error's name where it has none."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__
