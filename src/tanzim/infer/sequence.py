"""One request on its way: its tokens, its text, and whether it has ended."""

from __future__ import annotations

import time
from collections.abc import Container
from typing import Any

from tanzim.core.errors import TanzimError
from tanzim.infer.grammar import Matcher
from tanzim.infer.refusals import GrammarError
from tanzim.infer.request import Completion, Delta, FinishReason, Request, Times, TokenLogprob
from tanzim.infer.sampling import Sampler
from tanzim.infer.text import Detokeniser, StopFinder


class Sequence:
    """The state of one request between prompt and completion.

    Args:
        request: what was asked.
        tokenizer: turns tokens into text.
        stop_ids: tokens that end the answer.
        limit: most tokens to generate (the request's, or what the context leaves).
        matcher: follows the request's grammar.

    """

    def __init__(
        self,
        request: Request,
        tokenizer: Any,  # noqa: ANN401 - any tokenizer with decode
        stop_ids: Container[int],
        limit: int,
        matcher: Matcher | None = None,
    ) -> None:
        self.request = request
        self.sampler = Sampler(request, matcher)
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.times = Times(time.perf_counter())
        self.error: TanzimError | None = None  # why it could not begin, or go on
        self._stop_ids = stop_ids
        self.limit = limit
        self._detokeniser = Detokeniser(tokenizer, request.shown)
        self._stops = StopFinder(request.stop)
        self._logprobs: list[TokenLogprob] = []
        self._starts: list[int] = []  # characters of text before each token
        self._decoded = 0
        self._text: list[str] = []
        self._released = 0  # characters
        self._kept: int | None = None
        self._taken_text = self._taken_ids = 0

    def begin(self, known: int = 0) -> None:
        """Note that the prompt is computed from now on, but for its first ``known`` tokens."""
        self.times.begun, self.times.known = time.perf_counter(), known

    def append(self, token: int, logprob: TokenLogprob | None) -> None:
        """Take the next token; sets ``finish_reason`` when it is the last."""
        times = self.times
        times.last = time.perf_counter()
        times.first = times.first or times.last
        times.tokens += 1
        self.ids.append(token)
        self._starts.append(self._decoded)
        if logprob is not None:
            self._logprobs.append(logprob)
        if token in self._stop_ids:
            self._end("stop", len(self.ids) - 1)
            return
        self._release(self._detokeniser.push(token))
        matcher = self.sampler.matcher
        if self.finish_reason is None and matcher is not None and matcher.ended:
            if matcher.error is not None:
                self.error = GrammarError(f"the answer's grammar cannot be followed: {matcher.error}")
            self._end("stop", len(self.ids))
        if self.finish_reason is None and len(self.ids) >= self.limit:
            self._end("length", len(self.ids))

    def _release(self, text: str) -> None:
        """Let new text out as far as the stop strings allow; end if one is complete."""
        self._decoded += len(text)
        released = self._stops.push(text)
        self._text.append(released)
        self._released += len(released)
        if self._stops.found:
            self.finish_reason = "stop"
            self._kept = sum(start < self._released for start in self._starts)

    def _end(self, reason: FinishReason, kept: int) -> None:
        self._release(self._detokeniser.finish())
        if self.finish_reason is None:
            rest = self._stops.finish()
            self._text.append(rest)
            self._released += len(rest)
            self.finish_reason, self._kept = reason, kept

    def take(self) -> Delta | None:
        """Return what has become final since the last call; None if nothing has."""
        text = "".join(self._text[self._taken_text :])
        self._taken_text = len(self._text)
        end = self._kept
        if end is None:
            end = sum(start < self._released for start in self._starts[self._taken_ids :])
            end += self._taken_ids
        start, self._taken_ids = self._taken_ids, max(end, self._taken_ids)
        if not text and self.finish_reason is None and end <= start:
            return None
        return Delta(text, tuple(self.ids[start:end]), self.finish_reason, tuple(self._logprobs[start:end]))

    def completion(self) -> Completion:
        """Return the finished answer."""
        assert self.finish_reason is not None
        assert self._kept is not None
        return Completion(
            ids=tuple(self.ids),
            text="".join(self._text),
            finish_reason=self.finish_reason,
            logprobs=None if self.request.logprobs is None else tuple(self._logprobs),
            prompt_tokens=len(self.request.prompt_ids),
            kept=self._kept,
        )
