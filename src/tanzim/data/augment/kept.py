"""Answers of a language model kept on disk as they come: what was paid for is not asked again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tanzim.core.powers import Complete
from tanzim.core.records import Message

_AT_ONCE = 16  # conversations that are asked, and kept, together


class KeptAnswers:
    """A language model whose answers are kept in a file; called as the model itself.

    A kill loses at most the answers under way; a last line that was cut off is dropped.

    Args:
        complete: the model.
        path: a file of lines, made if it is not there.

    """

    def __init__(self, complete: Complete, path: Path) -> None:
        self._complete, self._path = complete, path
        self._known: dict[str, str] = {}
        self.asked = 0
        if path.is_file():
            lines = path.read_bytes().split(b"\n")
            whole = b"".join(line + b"\n" for line in lines[:-1])
            if lines[-1]:
                path.write_bytes(whole)
            for line in lines[:-1]:
                value = json.loads(line)
                self._known[value["key"]] = value["answer"]

    def __call__(
        self, conversations: Sequence[Sequence[Message]], *, longest: int | None = None
    ) -> list[str]:
        """Return the answers to conversations, in order; ``longest`` as in `Complete`."""
        keys = [_key(turns, longest) for turns in conversations]
        limit = {} if longest is None else {"longest": longest}
        new = {key: turns for key, turns in zip(keys, conversations, strict=True) if key not in self._known}
        todo = list(new.items())
        for start in range(0, len(todo), _AT_ONCE):
            block = todo[start : start + _AT_ONCE]
            answers = self._complete([turns for _, turns in block], **limit)
            self.asked += len(block)
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                for (key, _), answer in zip(block, answers, strict=True):
                    self._known[key] = answer
                    file.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return [self._known[key] for key in keys]


def _key(turns: Sequence[Message], longest: int | None) -> str:
    said = json.dumps([*([turn.role, turn.content] for turn in turns), *([longest] if longest else [])])
    return hashlib.sha256(said.encode()).hexdigest()
