"""Start and end of every command: flags, logging, and one line for a user's mistake."""

import functools
import logging
import math
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
from absl import app
from absl import flags as absl_flags
from absl import logging as absl_logging
from ml_collections import config_flags

from m2l_jax.interface.errors import InputError, Interrupted
from m2l_jax.interface.progress import STOPPED
from m2l_jax.interface.settings import LARGEST_SEED, fit_to_choices

absl_flags.disclaim_key_flags()  # so that --help shows --config among the command's own

_CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'

# Of the extra `train`, which encoding and decoding do without.
_TRAINING_PACKAGES = (
    'array_record',
    'tensorboard',
    'tensorboardX',
    'tensorflow',
    'tensorflow_datasets',
)

_OVERRIDE = re.compile('--?config[^=]')
_DOTTED = re.compile(r'--?config(\.[A-Za-z_]\w*)+')

EXIT_INPUT_ERROR = 1
EXIT_INTERRUPTED = 75  # as in sysexits.h: the same command, run again, goes on


class _ConfigParser(config_flags.config_flags.ConfigFileFlagParser):
    """Reads a config by its file or by the name of one that comes with this package."""

    def parse(self, path: str) -> ml_collections.ConfigDict:
        name, colon, argument = path.partition(':')
        files = sorted(_CONFIGS.glob('*.py'))
        names = [each.stem for each in files if 'def get_config' in each.read_text()]
        file = _CONFIGS / f'{name}.py' if name in names else pathlib.Path(name)
        try:
            file.open().close()  # the library would raise only when the config is used
        except OSError as error:
            raise InputError(
                f'--config={name} cannot be read ({error.strerror}): pass a .py file or one of '
                f'{", ".join(names)}'
            ) from None
        config = super().parse(f'{file}{colon}{argument}')
        if not isinstance(config, Mapping | ml_collections.ConfigDict):
            raise InputError(
                f'--config={name}: its get_config returns {type(config).__name__}, not a ConfigDict'
            )
        if isinstance(config, Mapping | ml_collections.FrozenConfigDict):
            config = ml_collections.ConfigDict(config)
        return config.unlock()


def define_config(default: str | None = None) -> None:
    """Defines `--config=NAME[:argument]`, whose fields `--config.a.b=value` overrides or adds."""
    holder = config_flags.DEFINE_config_file(
        'config',
        None,
        'Name of a config of this package or a .py file, with :argument for some (a TPU slice, a '
        'number of GPUs): tpu_v4:v4-32, my/config.py; override a field with --config.field=value.',
        lock_config=False,
        accept_new_attributes=True,  # a choice's own fields; `read_config` refuses all others
    )
    absl_flags.FLAGS['config'].parser = _ConfigParser('config', lock_config=False)
    if default is not None:
        absl_flags.set_default(holder, default)


def read_config(settings: type) -> ml_collections.ConfigDict:
    """The config that the command line asks for.

    A name such as `--config.optimizer.name` chooses a class: fields of the config's file that this
    class lacks are left out.

    Args:
      settings: the dataclass that the config is for.

    Raises:
      InputError: for a field that `settings`, or the chosen class in it, lacks.
    """
    flag = absl_flags.FLAGS['config']
    fit_to_choices(settings, flag.value, set(_leaves(flag.override_values, flag.name)))
    return flag.value


def _leaves(fields: Mapping[str, Any], where: str) -> Iterator[str]:
    for name, value in fields.items():
        path = f'{where}.{name}'
        yield from _leaves(value, path) if isinstance(value, Mapping) else [path]


def define_checkpoint() -> absl_flags.FlagHolder:
    """Defines `--checkpoint`, the model to use."""
    return absl_flags.DEFINE_string(
        'checkpoint',
        None,
        'Folder of a training run or a conversion, .pt or .safetensors file, hf://user/model or '
        'hf://user/model@revision of the Hugging Face Hub, or the name of a model that comes with '
        'this package: small.',
    )


def define_finite_float(
    name: str, default: float | None, help: str, lower_bound: float = 0
) -> absl_flags.FlagHolder:
    """Defines a number that is neither `nan` nor `inf`, which absl accepts."""
    holder = absl_flags.DEFINE_float(name, default, help, lower_bound=lower_bound)
    absl_flags.register_validator(
        holder, lambda value: value is None or math.isfinite(value), 'must be finite'
    )
    return holder


def define_seed(help: str = 'Seed of the decoding noise.') -> absl_flags.FlagHolder:
    """Defines `--seed`."""
    return absl_flags.DEFINE_integer('seed', 0, help, lower_bound=0, upper_bound=LARGEST_SEED)


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`.

    An InputError becomes one line and exit code 1; an Interrupted, one line and exit code 75.
    """
    _configure_logging()
    sys.unraisablehook = functools.partial(show_unraisable, sys.unraisablehook)

    def guarded_main(positional: Sequence[str]) -> None:
        if len(positional) > 1:
            _fail(f'unexpected argument {positional[1]!r}: everything is passed as --flag=value')
        try:
            main()
        except (InputError, Interrupted) as error:
            sys.exit(report_error(error))
        except KeyboardInterrupt:
            sys.exit(report_error(Interrupted(STOPPED)))
        except ModuleNotFoundError as error:
            package = (error.name or '').partition('.')[0]
            if package not in _TRAINING_PACKAGES:
                raise
            _fail(f"this needs {package}, which is missing: pip install 'm2l-jax[train]'")
        except (RuntimeError, AssertionError):
            if 'jax' in sys.modules:  # it raises these wherever a missing device is first used
                from m2l_jax.interface.devices import check_devices

                try:
                    check_devices()
                except InputError as error:
                    sys.exit(report_error(error))
            raise

    app.run(guarded_main, flags_parser=_parse_flags)


def report_error(error: InputError | Interrupted) -> int:
    """Prints the error that ends a command, and returns the command's exit code."""
    is_interrupted = isinstance(error, Interrupted)
    print(error if is_interrupted else f'error: {error}', file=sys.stderr)
    return EXIT_INTERRUPTED if is_interrupted else EXIT_INPUT_ERROR


def _configure_logging() -> None:
    """Shows this project's messages from INFO and others' from WARNING, each with its time."""
    # TensorFlow logs from C++ as it starts, about oneDNN in spite of the level.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%T'))
    handler.addFilter(is_news)
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger('m2l_jax').setLevel(logging.INFO)


def is_news(record: logging.LogRecord) -> bool:
    """False for a stack trace of Orbax or of its tasks, which raises the same error."""
    if record.name == 'asyncio' and 'never retrieved' in record.getMessage():
        return False
    return record.exc_info is None or 'orbax' not in pathlib.Path(record.pathname).parts


def show_unraisable(
    show: Callable[['sys.UnraisableHookArgs'], None], unraisable: 'sys.UnraisableHookArgs'
) -> None:
    """After a failed save, TensorStore's threads raise `Event loop is closed` hundreds of times."""
    if str(unraisable.exc_value) != 'Event loop is closed':
        show(unraisable)


def _parse_flags(arguments: Sequence[str]) -> list[str]:
    arguments = [_with_underscores(argument) for argument in arguments]
    overrides = _find_overrides(arguments)
    sys.argv = arguments  # ml_collections reads the overrides there
    try:
        return absl_flags.FLAGS(arguments)
    except absl_flags.Error as error:
        # ml_collections adds a trace to a config's own error.
        cause, message = error.__context__, str(error).strip().splitlines()[-1]
        if isinstance(cause, InputError):
            _fail(message.partition(': ')[2])
        if isinstance(cause, TypeError) and 'get_config() takes 0' in message:
            _fail('this --config takes no :argument')
        _fail(_explain_flags(str(error)))
    except ModuleNotFoundError as error:
        if error.name != 'configs':
            raise
        _fail('this config imports from `configs`, which is not found: import from m2l_jax.configs')
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # An override in a section that the config lacks; the second line has the nearest name.
        if 'ml_collections' not in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise
        message = str(error.args[0]).replace('\\n', '\n').replace("\\'", "'")
        if isinstance(error, TypeError | ValueError) or 'does not support indexing' in message:
            parts = ', '.join(each for each in overrides if each.count('.') > 1)
            _fail(f'a field without parts is given one: look at {parts}')
        name, *hint = (line.strip('\'" ') for line in message.splitlines())
        _fail(f'unknown config field {name!r}' + ''.join(f'. {line}' for line in hint))


def _find_overrides(arguments: Sequence[str]) -> list[str]:
    """The flags `--config.a.b`, without values."""
    names = [each.partition('=')[0] for each in arguments if _OVERRIDE.match(each)]
    for name in names:
        if not _DOTTED.fullmatch(name):
            _fail(f'{name} is no field of a config: write e.g. --config.data.batch_size=16')
    return names


def _explain_flags(text: str) -> str:
    """One line of what absl says of flags."""
    if missing := re.findall(r'^flag (--[\w.]+)=None: ', text.strip(), re.MULTILINE):
        verb = 'are' if len(missing) > 1 else 'is'
        return f'{", ".join(missing)} {verb} missing: --helpshort lists all flags'
    line = text.strip().splitlines()[-1].strip().removeprefix('flag ')
    line = re.sub(r'invalid literal for int\(\).*', 'must be a whole number', line)
    return re.sub(r'could not convert string to float.*', 'must be a number', line)


def _with_underscores(argument: str) -> str:
    """`--some-flag=value` as `--some_flag=value`."""
    name, equals, value = argument.partition('=')
    return '--' + name[2:].replace('-', '_') + equals + value if name[:2] == '--' else argument


def _fail(message: str) -> None:
    sys.exit(report_error(InputError(message)))
