"""Import an optional package, or say in one line which command installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from tanzim.core.errors import MissingExtra


def need(module: str, extra: str) -> ModuleType:
    """Import ``module``, which belongs to the extra ``extra``.

    Raises:
        MissingExtra: the package is not installed; the message names the command that installs it.

    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = error.name or module
        if name.split(".")[0] == "tanzim":
            raise
        raise MissingExtra(
            f"this needs the package '{name}', which is not installed",
            fix=f'pip install "tanzim[{extra}]"',
        ) from error
