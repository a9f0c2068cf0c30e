"""Answers in the shape of OpenAI's chat completions, whole and as a stream.

Specification: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from tanzim.core.records import Json
from tanzim.infer.pieces import Pieces
from tanzim.infer.request import Delta, TokenLogprob


class Answer:
    """One chat completion: the same id, time and model name in every part of it.

    Args:
        model: the name the client asked for.
        pieces: looks up single tokens.
        prompt_tokens: length of the prompt.
        logprobs: whether the client asked for log-probabilities.

    Attributes:
        first_text: when the first text came, as `time.perf_counter` has it; None before.

    """

    def __init__(self, model: str, pieces: Pieces, prompt_tokens: int, *, logprobs: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._pieces = pieces
        self.prompt_tokens = prompt_tokens
        self.first_text: float | None = None
        self._texts: list[str] = []
        self._logprobs = logprobs
        self._completion_tokens = 0

    def whole(self, choices: Sequence[Sequence[Delta]]) -> Json:
        """Return the finished answer.

        Args:
            choices: for each choice, everything its stream gave.

        """
        made = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": "".join(delta.text for delta in deltas),
                    "refusal": None,
                },
                "logprobs": self._content([token for delta in deltas for token in delta.logprobs]),
                "finish_reason": deltas[-1].finish_reason,
            }
            for index, deltas in enumerate(choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": made, "usage": self._usage()}

    @property
    def id(self) -> str:
        """What it is called."""
        return str(self._head["id"])

    @property
    def text(self) -> str:
        """What was said so far, by all choices."""
        return "".join(self._texts)

    def note(self, delta: Delta) -> None:
        """Take note of a delta on its way to the client."""
        self._completion_tokens += len(delta.ids)
        if delta.text:
            self._texts.append(delta.text)
            if self.first_text is None:
                self.first_text = time.perf_counter()

    @property
    def tokens(self) -> int:
        """Tokens so far, of the prompt and of all choices."""
        return self.prompt_tokens + self._completion_tokens

    def opening(self, index: int) -> Json:
        """Return the first chunk of a choice."""
        return self._chunk(index, {"role": "assistant", "content": "", "refusal": None}, None, None)

    def parts(self, index: int, delta: Delta) -> list[Json]:
        """Return the chunks that a delta makes: its text, and the end if it is the last."""
        chunks = []
        if delta.text or delta.logprobs:
            chunks.append(self._chunk(index, {"content": delta.text}, self._content(delta.logprobs), None))
        if delta.finish_reason is not None:
            chunks.append(self._chunk(index, {}, None, delta.finish_reason))
        return chunks

    def closing(self) -> Json:
        """Return the chunk that reports the usage."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()}

    def _chunk(self, index: int, delta: Json, logprobs: Json | None, reason: str | None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _usage(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": self.tokens,
        }

    def _content(self, tokens: Sequence[TokenLogprob]) -> Json | None:
        if not self._logprobs:
            return None
        content = [
            {**self._token(t.id, t.logprob), "top_logprobs": [self._token(i, v) for i, v in t.top]}
            for t in tokens
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> Json:
        pieces = self._pieces
        # JSON has no infinity; OpenAI writes this number for a token of no probability.
        return {"token": pieces.text(token), "logprob": max(logprob, -9999.0), "bytes": pieces.bytes(token)}
