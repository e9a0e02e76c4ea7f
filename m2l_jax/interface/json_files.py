"""JSON that commands write."""

import json
import math
import os
from typing import Any

from m2l_jax.interface.paths import replaced_file


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 2) -> None:
    """Writes `to_json(content)`, whole or not at all; missing folders are made.

    Raises:
      InputError: if it cannot be written.
    """
    text = to_json(content, indent)
    with replaced_file(path) as partial:
        partial.write_text(text + '\n')


def to_json(content: Any, indent: int | None = 2) -> str:
    """JSON in which numbers that are not finite, such as the SI-SDR of silence, are null.

    `indent` is in spaces a level; None for one line.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
