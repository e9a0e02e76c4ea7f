"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """A mistake in what the user gave: a file, a field, a folder.

    The message is one line that names the file or field and the mend. Commands print it without
    a stack trace and exit with code 1; library callers catch it as a ``ValueError``.
    """
