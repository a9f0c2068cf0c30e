"""API keys: shown once, kept as hashes, bound to a project and a role; they expire and can be revoked."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from typing import cast

from sqlalchemy import Engine, RowMapping, insert, select, update

from tanzim.core.errors import ConfigError
from tanzim.serve.access.roles import PROJECT, Caller, Role
from tanzim.serve.store.database import writing
from tanzim.serve.store.tables import keys

PREFIX = "tz"
_FORM = re.compile(rf"{PREFIX}-([0-9a-f]{{16}})-([A-Za-z0-9_-]{{43}})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NOBODY = bytes(32)  # no text has this hash


class Keys:
    """The keys of a server.

    A key's secret has 256 random bits, so one round of SHA-256 keeps it: nothing can be guessed and tried.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(
        self,
        name: str,
        *,
        role: Role,
        project: str = PROJECT,
        days: float | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> str:
        """Make a key; return it. It cannot be shown again.

        Args:
            name: what it is for.
            role: what may be done with it.
            project: what it sees; projects do not see one another.
            days: after which it ends; None for never.
            requests_per_minute: most requests.
            tokens_per_minute: most tokens, of prompts and answers together.

        Raises:
            ConfigError: a name cannot be used.

        """
        if not _NAME.fullmatch(project):
            raise ConfigError(f"'{project}' is no name of a project", fix="letters, digits, - and _")
        id_, secret, now = secrets.token_hex(8), secrets.token_urlsafe(32), int(time.time())
        row = {
            "id": id_,
            "name": name,
            "hash": hashlib.sha256(secret.encode()).hexdigest(),
            "project": project,
            "role": role,
            "created_at": now,
            "expires_at": None if days is None else int(now + days * 86_400),
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }
        with writing(self._engine) as connection:
            connection.execute(insert(keys).values(row))
        return f"{PREFIX}-{id_}-{secret}"

    def all(self) -> Sequence[RowMapping]:
        """Return every key, the oldest first; their secrets are not known."""
        with self._engine.begin() as connection:
            return connection.execute(select(keys).order_by(keys.c.number)).mappings().all()

    def revoke(self, id_: str) -> bool:
        """End a key at once; tell whether there was one that had not ended."""
        change = update(keys).where(keys.c.id == id_, keys.c.revoked_at.is_(None))
        with writing(self._engine) as connection:
            return bool(connection.execute(change.values(revoked_at=int(time.time()))).rowcount)

    def caller(self, key: str) -> Caller | None:
        """Return who has a key; None if it is none, has ended, or was revoked.

        It takes the same time whatever is wrong: the comparison does not stop at the first difference,
        and is made even where there is no such key.
        """
        parts = _FORM.fullmatch(key)
        id_, secret = parts.groups() if parts else ("", "")
        row = self._row(id_)
        known = bytes.fromhex(row["hash"]) if row else _NOBODY
        same = hmac.compare_digest(known, hashlib.sha256(secret.encode()).digest())
        if row is None or not same or _ended(row):
            return None
        return Caller(
            row["project"],
            cast(Role, row["role"]),
            row["id"],
            row["requests_per_minute"],
            row["tokens_per_minute"],
        )

    def ended(self, id_: str) -> bool:
        """Tell whether a key has expired, was revoked, or is gone."""
        row = self._row(id_)
        return row is None or _ended(row)

    def _row(self, id_: str) -> RowMapping | None:
        with self._engine.begin() as connection:
            return connection.execute(select(keys).where(keys.c.id == id_)).mappings().one_or_none()


def _ended(row: RowMapping) -> bool:
    expires = row["expires_at"]
    return row["revoked_at"] is not None or (expires is not None and expires <= time.time())
