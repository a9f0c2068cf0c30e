"""A key's secret is compared as a whole and nowhere else: no time, no query tells how much is right."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from tanzim.serve.access import keys as module
from tanzim.serve.access.keys import Keys
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(ServeConfig(folder=str(tmp_path / "server")))
    yield made
    made.close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What `hmac.compare_digest` was given."""
    seen: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        seen.append((bytes(one), bytes(other)))
        return real(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", counted)
    return seen


def guesses(key: str) -> list[str]:
    """Return keys that are wrong ever later, and in every other way."""
    head, secret = key[:20], key[20:]
    other = {sign: "A" if sign != "A" else "B" for sign in set(secret)}
    late = [head + secret[:n] + other[secret[n]] + secret[n + 1 :] for n in range(0, 43, 6)]
    return [
        *late,
        "tz-" + "0" * 16 + "-" + secret,
        head + "A" * 43,
        key + "A",
        key[:-1],
        "tz-",
        "",
        key.upper(),
    ]


def test_every_guess_costs_one_comparison_of_the_same_length(
    store: Store, compared: list[tuple[bytes, bytes]]
) -> None:
    key = store.keys.add("sara", role="user")
    assert store.keys.caller(key) is not None
    for guess in guesses(key):
        assert store.keys.caller(guess) is None
    assert len(compared) == 1 + len(guesses(key))
    # Digests, whose bytes say nothing of how much of a guess is right.
    assert {(len(one), len(other)) for one, other in compared} == {(32, 32)}
    assert compared[0][0] == compared[0][1] == hashlib.sha256(key[20:].encode()).digest()
    assert sum(one == other for one, other in compared) == 1


def test_that_comparison_alone_decides(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store.keys.add("sara", role="user")
    wrong = guesses(key)[0]
    monkeypatch.setattr(module.hmac, "compare_digest", lambda *_: False)
    assert store.keys.caller(key) is None  # else something compares besides, such as ==
    monkeypatch.setattr(module.hmac, "compare_digest", lambda *_: True)
    assert store.keys.caller(wrong) is not None


def test_the_database_is_asked_for_the_name_of_a_key_alone(store: Store) -> None:
    key = store.keys.add("sara", role="user")
    asked: list[Any] = []
    event.listen(store.database, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    for guess in (key, *guesses(key)):
        Keys(store.database).caller(guess)
    selects = [(text, values) for text, values in asked if text.startswith("SELECT")]
    assert len(selects) == 1 + len(guesses(key))
    hashed = hashlib.sha256(key[20:].encode()).hexdigest()
    for text, values in selects:
        assert text.split("WHERE", 1)[1].strip() == "keys.id = ?"
        assert key[20:] not in str(values)
        assert hashed not in str(values)
