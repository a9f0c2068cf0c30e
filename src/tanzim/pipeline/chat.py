"""``tanzim chat``: a conversation with a base or tuned model, streamed."""

from __future__ import annotations

from collections.abc import Iterator

from tanzim.core.progress import Reporter
from tanzim.core.records import Message
from tanzim.infer.engine import Request
from tanzim.pipeline.opened import Opened, open_models


class Conversation:
    """What was said so far, and the model that answers.

    Args:
        opened: the model.
        system: a system prompt; None leaves it to the chat template.
        max_new_tokens: longest answer, in tokens.
    """

    def __init__(self, opened: Opened, *, system: str | None = None, max_new_tokens: int = 512) -> None:
        self._opened = opened
        self._start = [Message("system", system)] if system else []
        self._said = list(self._start)
        self._max_new_tokens = max_new_tokens

    @property
    def name(self) -> str:
        """Name of the model that answers."""
        return self._opened.name

    def clear(self) -> None:
        """Forget what was said, but for the system prompt."""
        self._said = list(self._start)

    def ask(self, text: str) -> Iterator[str]:
        """Yield the greedy answer to ``text`` piece by piece, and remember both."""
        self._said.append(Message("user", text))
        request = Request(
            prompt_ids=self._opened.renderer.prompt(self._said),
            adapter=self._opened.adapter,
            max_new_tokens=self._max_new_tokens,
        )
        pieces: list[str] = []
        try:
            for delta in self._opened.engine.stream(request):
                pieces.append(delta.text)
                yield delta.text
        finally:
            self._said.append(Message("assistant", "".join(pieces)))


def chat(
    model: str, message: str, *, system: str | None = None, reporter: Reporter | None = None
) -> Iterator[str]:
    """Yield a model's answer to one message, piece by piece.

    Args:
        model: run folder, adapter folder, model name or path; "" takes the newest run.
        message: what the user says.
        system: a system prompt.
        reporter: takes what was chosen.

    Raises:
        ModelError: the model cannot be used.
        RunError: the run has no trained model yet.
    """
    reporter = reporter or Reporter()
    conversation = Conversation(open_models([model] if model else [], reporter=reporter), system=system)
    yield from conversation.ask(message)
