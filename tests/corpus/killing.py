"""Processes that are killed at a moment that no clock decides."""


def killed_at(count, folder, events=('open', 'os.mkdir', 'os.rename', 'os.remove', 'os.link')):
    """Python by which a process kills itself instead of doing something for the nth time.

    Args:
      count: n.
      folder: what it does has to do with files whose paths begin like this.
      events: what is counted, by the names that Python audits it under.
    """
    return f"""
import os, signal, sys
left = [{count}]
def note(event, arguments):
    if event in {events!r} and {str(folder)!r} in str(arguments):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(note)
"""
