"""Packages that some metrics need and an installation may lack."""

import dataclasses
import importlib.util
from collections.abc import Sequence

EXTRA = "pip install 'm2l-jax[evaluate]'"


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that is imported where it is used.

    Attributes:
      module: its top module.
      install: the command that installs it.
    """

    module: str
    install: str

    def is_installed(self) -> bool:
        """Looks for the module, without importing it."""
        return importlib.util.find_spec(self.module) is not None


def describe_missing(packages: Sequence[Package]) -> str:
    """One line that names the packages that are missing and how to install them; '' if none is."""
    missing = [package for package in packages if not package.is_installed()]
    if not missing:
        return ''
    names = ', '.join(package.module for package in missing)
    verb = 'are' if len(missing) > 1 else 'is'
    commands = ' && '.join(dict.fromkeys(package.install for package in missing))
    return f'{names} {verb} not installed: {commands}'
