"""The outcome of a check in the formats that people and their platforms read.

Every module here that has a function `render` is a format, named as the module is; a new format is a new file
and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from bnfold.gate.run import Checked

FORMATS = tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
"""The names of all formats."""


def renderer(name: str) -> Callable[[Checked], str]:
    """What writes a format.

    Args:
        name: One of `FORMATS`.
    """
    render: Callable[[Checked], str] = importlib.import_module(f"{__name__}.{name}").render
    return render
