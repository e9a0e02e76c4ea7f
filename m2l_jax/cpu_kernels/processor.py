"""Abilities of the processor."""

import pathlib
import re

_DESCRIPTION = pathlib.Path('/proc/cpuinfo')


def multiplies_bfloat16(description: pathlib.Path = _DESCRIPTION) -> bool:
    """Finds whether products of bfloat16 have their own instructions, of AMX or AVX-512.

    Args:
      description: of the processor, as Linux writes it; elsewhere there is none, nor an answer but
        no.
    """
    try:
        flags = re.search(r'^flags\s*:(.*)$', description.read_text(), re.MULTILINE)
    except OSError:
        return False
    return flags is not None and not {'amx_bf16', 'avx512_bf16'}.isdisjoint(flags[1].split())
