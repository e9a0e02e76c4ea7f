"""All commands by one name: `m2l encode --input=…` is `python -m m2l_jax.encode --input=…`."""

import ast
import difflib
import importlib.metadata
import pathlib
import runpy
import signal
import sys

_FOLDER = pathlib.Path(__file__).parent


def _commands() -> dict[str, str]:
    """The commands with the first line of their documentation; imports none of them."""
    files = sorted(_FOLDER.glob('[a-z]*.py'))
    return {
        file.stem: ast.get_docstring(ast.parse(file.read_text())).splitlines()[0] for file in files
    }


def main() -> None:
    """Runs the command that the first argument names, or lists the commands."""
    commands = _commands()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('--version', 'version'):
        try:
            print(importlib.metadata.version('m2l-jax'))
        except importlib.metadata.PackageNotFoundError:
            sys.exit('error: m2l_jax runs from a folder and is not installed: pip install .')
    elif name in ('-h', '--help', 'help'):
        if hasattr(signal, 'SIGPIPE'):  # a pipe to `head` closes early
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print('Usage: m2l COMMAND --flag=value …; `m2l COMMAND --help` lists the flags.\n')
        for command, purpose in commands.items():
            print(f'  {command:12}{purpose}')
    elif name in commands:
        del sys.argv[1]
        runpy.run_module(f'{__package__}.{name}', run_name='__main__', alter_sys=True)
    else:
        near = difflib.get_close_matches(name, commands, 1)
        hint = f'did you mean {near[0]}?' if near else '`m2l --help` lists the commands'
        sys.exit(f'error: there is no command {name!r}: {hint}')


if __name__ == '__main__':
    main()
