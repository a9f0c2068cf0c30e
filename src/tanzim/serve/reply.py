"""What the answers of all routes have in common: a name, an account of what was said, and events."""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from tanzim.core.records import Json
from tanzim.infer.request import Delta, Times
from tanzim.serve.errors import ApiError


class Tally:
    """What one answer to one request of a client comes to.

    Args:
        kind: begins its id.
        model: the name the client asked for.
        prompt_tokens: length of the prompt, or of all of them.

    Attributes:
        first_text: when the first text came, as `time.perf_counter` has it; None before.
        times: of each choice, how it got on.
        fault_name: of the error that ended it; None where none did.

    """

    def __init__(self, kind: str, model: str, prompt_tokens: int) -> None:
        self.id = f"{kind}-{secrets.token_hex(12)}"
        self.model = model
        self.created = int(time.time())
        self.prompt_tokens = prompt_tokens
        self.answer_tokens = 0
        self.first_text: float | None = None
        self.fault_name: str | None = None
        self.times: list[Times] = []
        self._texts: dict[int, list[str]] = {}
        self._ends: dict[int, str] = {}

    @property
    def texts(self) -> list[str]:
        """What each choice has said so far."""
        return ["".join(self._texts.get(index, ())) for index in range(len(self.times))]

    @property
    def ends(self) -> list[str]:
        """Why each choice has ended, as the client was told; an empty text for one that has not."""
        return [self._ends.get(index, "") for index in range(len(self.times))]

    @property
    def tokens(self) -> int:
        """Tokens so far, of the prompts and of all choices."""
        return self.prompt_tokens + self.answer_tokens

    def awaited(self) -> Times:
        """Begin to wait for one more choice; return where its times are kept."""
        self.times.append(Times(time.perf_counter()))
        return self.times[-1]

    def note(self, index: int, delta: Delta) -> None:
        """Take note of a choice's delta on its way to the client."""
        self.answer_tokens += len(delta.ids)
        if delta.finish_reason is not None:
            self._ends[index] = delta.finish_reason
        if delta.text:
            self._texts.setdefault(index, []).append(delta.text)
            if self.first_text is None:
                self.first_text = time.perf_counter()


class Reply(Tally, ABC):
    """An answer that the model writes, whole or as a stream of events."""

    END = "data: [DONE]\n\n"
    """What follows the last event."""

    def usage(self) -> Json:
        """Return the tokens so far as chat and text completions report them."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer_tokens,
            "total_tokens": self.tokens,
        }

    @abstractmethod
    def whole(self, choices: Sequence[Sequence[Delta]]) -> Json:
        """Return the finished answer.

        Args:
            choices: for each choice, everything its stream gave.

        """

    def opening(self) -> list[Json]:
        """Return the events before the first delta."""
        return []

    @abstractmethod
    def parts(self, index: int, delta: Delta) -> list[Json]:
        """Return the events that a choice's delta makes."""

    def closing(self) -> list[Json]:
        """Return the events after the last delta."""
        return []

    def fault(self, error: ApiError) -> Json:
        """Return the event of an error in the middle of a stream."""
        return error.body()

    def event(self, value: Json) -> str:
        """Return an event as the stream has it."""
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
