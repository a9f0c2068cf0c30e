"""The secret that pseudonyms hang on: from the environment, or made once for this user of this machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tanzim.core.errors import ConfigError

_LEAST = 16  # bytes: a shorter key could be found by trial


def pseudonym_key(variable: str) -> bytes:
    """Return the key.

    Args:
        variable: the environment variable that holds it.

    A key of the user's own (the same on several machines, or another for each project) comes from the
    environment. Else one is made, and kept where no run, cache or export lies: in ``~/.config/tanzim``
    (``XDG_CONFIG_HOME``), readable by its owner alone. Whoever has it can find out who is meant.

    Raises:
        ConfigError: the key is too short, or cannot be kept.

    """
    if (given := os.environ.get(variable)) is not None:
        if len(given.encode()) < _LEAST:
            raise ConfigError(
                f"the key for pseudonyms has {len(given.encode())} bytes; fewer than {_LEAST} can be guessed",
                where=f"environment variable {variable}",
                fix="set it to the output of: openssl rand -hex 32",
            )
        return given.encode()
    path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tanzim" / "pseudonym.key"
    try:
        return _kept(path)
    except OSError as error:
        raise ConfigError(
            f"the key for pseudonyms cannot be kept ({error.strerror or error})",
            where=str(path),
            fix=f"set {variable} to a secret of your own",
        ) from None


def _kept(path: Path) -> bytes:
    """Read the key, or make it; of several processes that make one, the first wins."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    key = path.read_bytes().strip()
    if len(key) < _LEAST:
        raise ConfigError(
            f"the key for pseudonyms has {len(key)} bytes: it is damaged",
            where=str(path),
            fix="delete the file; a new key is made, and gives other pseudonyms",
        )
    return key
