"""Secrets: named in the config as ${NAME}, taken from the environment, kept out of every message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from tanzim.core.errors import ConfigError

_NAMED = re.compile(r"\$\{(\w+)\}")


class Secrets:
    """Fills in ``${NAME}`` from the environment, and hides what it filled in.

    Args:
        where: the key or source that messages name.

    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._values: set[str] = set()

    def fill(self, text: str, written: Callable[[str], str] = str) -> str:
        """Return ``text`` with each ``${NAME}`` replaced.

        Args:
            text: any text.
            written: how a value is to be written there, such as percent-encoded.

        Raises:
            ConfigError: a variable is not set.

        """

        def value(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if not found:
                raise ConfigError(
                    f"the environment variable {match[1]} is not set",
                    where=self._where,
                    fix=f"export {match[1]}=… before you start",
                )
            self.hide_also(found, written(found))
            return written(found)

        return _NAMED.sub(value, text)

    def fill_all(self, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Return a JSON value with every text in it filled in."""
        if isinstance(value, str):
            return self.fill(value)
        if isinstance(value, dict):
            return {key: self.fill_all(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill_all(inner) for inner in value]
        return value

    def hide_also(self, *values: str) -> None:
        """Keep these out of messages, too."""
        self._values.update(value for value in values if len(value) > 2)

    def hidden(self, text: str) -> str:
        """Return a message without any secret in it."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text
