"""Answers in the shape of OpenAI's text completions, whole and as a stream.

Specification: https://platform.openai.com/docs/api-reference/completions/object
"""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.core.records import Json
from tanzim.infer.pieces import Pieces
from tanzim.infer.request import Delta
from tanzim.infer.text import REPLACEMENT
from tanzim.serve.answer import LEAST
from tanzim.serve.reply import Reply


class TextAnswer(Reply):
    """One text completion, of any number of prompts.

    Args:
        model: the name the client asked for.
        pieces: looks up single tokens.
        prompt_tokens: length of all prompts.
        choices: how many there are, over all prompts.
        logprobs: whether the client asked for log-probabilities.
        usage: whether a stream ends with the usage.

    """

    def __init__(
        self, model: str, pieces: Pieces, prompt_tokens: int, choices: int, *, logprobs: bool, usage: bool
    ) -> None:
        super().__init__("cmpl", model, prompt_tokens)
        self._head = {"id": self.id, "object": "text_completion", "created": self.created, "model": model}
        self._pieces = pieces
        self._logprobs, self._usage = logprobs, usage
        self._lengths = [0] * choices  # characters of each choice so far

    def whole(self, choices: Sequence[Sequence[Delta]]) -> Json:
        """Return the finished answer."""
        made = []
        for index, deltas in enumerate(choices):
            told = [self._told(index, delta) for delta in deltas]
            keys = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
            joined = {key: [value for one in told for value in one[key]] for key in keys}
            made.append(
                {
                    "index": index,
                    "text": "".join(delta.text for delta in deltas),
                    "logprobs": joined if self._logprobs else None,
                    "finish_reason": deltas[-1].finish_reason,
                }
            )
        return {**self._head, "choices": made, "usage": self.usage()}

    def parts(self, index: int, delta: Delta) -> list[Json]:
        """Return the one chunk that a delta makes."""
        told = self._told(index, delta)
        choice = {
            "index": index,
            "text": delta.text,
            "logprobs": told if self._logprobs else None,
            "finish_reason": delta.finish_reason,
        }
        return [{**self._head, "choices": [choice]}]

    def closing(self) -> list[Json]:
        """Return the chunk that reports the usage, where asked for."""
        return [{**self._head, "choices": [], "usage": self.usage()}] if self._usage else []

    def _told(self, index: int, delta: Delta) -> Json:
        """Return what the API tells of a delta's tokens: columns, with the places where their texts begin."""
        start, seen = self._lengths[index], 0
        self._lengths[index] = start + len(delta.text)
        told: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in delta.logprobs:
            name = self._name(token.id)
            told["tokens"].append(name)
            told["token_logprobs"].append(max(token.logprob, LEAST))
            # The chosen one is always among them, as the API has it.
            likeliest = {self._name(other): max(value, LEAST) for other, value in token.top}
            told["top_logprobs"].append(likeliest | {name: max(token.logprob, LEAST)})
            # Characters of several tokens come with the last of them, and all of them begin there.
            place = delta.text.find(name, seen)
            told["text_offset"].append(start + (seen if place < 0 else place))
            seen = seen if place < 0 else place + len(name)
        return told

    def _name(self, token: int) -> str:
        """Return a token's text; where it is a part of a character, its bytes as the API writes them."""
        text = self._pieces.text(token)
        if REPLACEMENT not in text:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self._pieces.bytes(token) or ())
