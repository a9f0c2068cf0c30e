"""Answers in the shape of OpenAI's chat completions, whole and as a stream.

Specification: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.core.records import Json
from tanzim.infer.pieces import Pieces
from tanzim.infer.request import Delta, TokenLogprob
from tanzim.serve.reply import Reply
from tanzim.serve.tool_calls import ToolCalls, ToolFormat

LEAST = -9999.0  # JSON has no infinity; OpenAI writes this number for a token of no probability


class Answer(Reply):
    """One chat completion: the same id, time and model name in every part of it.

    Args:
        model: the name the client asked for.
        pieces: looks up single tokens.
        prompt_tokens: length of the prompt.
        choices: how many there are.
        tools: how the model writes calls, where it was shown tools; None looks for no calls.
        logprobs: whether the client asked for log-probabilities.
        usage: whether a stream ends with the usage.

    """

    def __init__(
        self,
        model: str,
        pieces: Pieces,
        prompt_tokens: int,
        choices: int,
        *,
        logprobs: bool,
        usage: bool,
        tools: ToolFormat | None = None,
    ) -> None:
        super().__init__("chatcmpl", model, prompt_tokens)
        self._head = {"id": self.id, "created": self.created, "model": model}
        self._pieces = pieces
        self._calls = [None if tools is None else ToolCalls(tools) for _ in range(choices)]
        self._logprobs, self._usage = logprobs, usage

    def whole(self, choices: Sequence[Sequence[Delta]]) -> Json:
        """Return the finished answer."""
        made = [
            {
                "index": index,
                "message": self._message([p for delta in deltas for p in self._told(index, delta)]),
                "logprobs": self._content([token for delta in deltas for token in delta.logprobs]),
                "finish_reason": self._reason(index, deltas[-1]),
            }
            for index, deltas in enumerate(choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": made, "usage": self.usage()}

    def opening(self) -> list[Json]:
        """Return the first chunk of each choice."""
        first = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(index, first, None, None) for index in range(len(self._calls))]

    def parts(self, index: int, delta: Delta) -> list[Json]:
        """Return the chunks that a delta makes: its text, and the end if it is the last."""
        chunks = []
        told, calls = self._told(index, delta), self._calls[index]
        number = 0 if calls is None else calls.count - sum(isinstance(piece, dict) for piece in told)
        logprobs = self._content(delta.logprobs)
        for piece in told or ([""] if delta.logprobs else []):
            if isinstance(piece, str):
                chunks.append(self._chunk(index, {"content": piece}, logprobs, None))
            else:
                chunks.append(
                    self._chunk(index, {"tool_calls": [{"index": number, **piece}]}, logprobs, None)
                )
                number += 1
            logprobs = None
        if delta.finish_reason is not None:
            chunks.append(self._chunk(index, {}, None, self._reason(index, delta)))
        return chunks

    def _told(self, index: int, delta: Delta) -> list[str | Json]:
        """Return the texts and calls that have become certain with a delta."""
        calls = self._calls[index]
        if calls is None:
            return [delta.text] if delta.text else []
        told = calls.push(delta.text)
        return told if delta.finish_reason is None else told + calls.finish()

    def _message(self, told: Sequence[str | Json]) -> Json:
        calls = [piece for piece in told if isinstance(piece, dict)]
        text = "".join(piece for piece in told if isinstance(piece, str))
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        return message | {"content": text or None, "tool_calls": calls} if calls else message

    def _reason(self, index: int, delta: Delta) -> str | None:
        calls = self._calls[index]
        if calls is not None and calls.count and delta.finish_reason == "stop":
            self._ends[index] = "tool_calls"
            return "tool_calls"
        return delta.finish_reason

    def closing(self) -> list[Json]:
        """Return the chunk that reports the usage, where asked for."""
        if not self._usage:
            return []
        return [{**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage()}]

    def _chunk(self, index: int, delta: Json, logprobs: Json | None, reason: str | None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

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
        return {"token": pieces.text(token), "logprob": max(logprob, LEAST), "bytes": pieces.bytes(token)}
