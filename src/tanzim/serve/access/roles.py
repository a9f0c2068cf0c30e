"""Roles and what they may do. Each route names the right it needs; a test finds one that names none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["viewer", "user", "trainer", "admin"]
Right = Literal["see", "ask", "train", "manage"]

RIGHTS: dict[Role, frozenset[Right]] = {
    "viewer": frozenset({"see"}),
    "user": frozenset({"see", "ask"}),
    "trainer": frozenset({"see", "ask", "train"}),
    "admin": frozenset({"see", "ask", "train", "manage"}),
}
PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        project: whose files, jobs and models are seen.
        role: what may be done with them.
        key: the id of the key; None for somebody on this machine, who needs none.
        requests_per_minute: most requests; None for any number.
        tokens_per_minute: most tokens, of prompts and answers together; None for any number.

    """

    project: str = PROJECT
    role: Role = "admin"
    key: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def may(self, right: Right) -> bool:
        """Tell whether the role has a right."""
        return right in RIGHTS[self.role]
