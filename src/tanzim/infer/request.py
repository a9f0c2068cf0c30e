"""What goes into the generator and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tanzim.core.errors import ConfigError

FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must keep to, to its last character; one cut off by its length is a beginning of such.

    Args:
        type: json_schema, json_object (any object), regex or lark.
        text: the schema as JSON, the expression (of the Rust kind: no look-around, no references), or a
            grammar as llguidance writes it; empty for json_object.

    """

    type: Literal["json_schema", "json_object", "regex", "lark"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue.

    Args:
        prompt_ids: the prompt's token ids; at least one.
        adapter: name of the adapter to answer with; None is the base model.
        realm: who asks; what was computed for one realm is not taken for another, since its speed would tell.
        max_new_tokens: longest answer, in tokens.
        temperature: divides the logits before sampling; 0 takes the likeliest token (greedy).
        top_p: sample from the likeliest tokens that hold this share of the probability.
        seed: makes the sampling repeatable, whatever else is in the batch; None draws a fresh one.
        stop: strings that end the answer, themselves left out of it.
        logprobs: None for none, else how many alternatives to report beside each chosen token.
        grammar: what the answer must keep to; None for nothing.
        shown: special tokens that the answer's text holds; it holds no others.

    Raises:
        ConfigError: a value is outside its range.

    """

    prompt_ids: list[int]
    adapter: str | None = None
    realm: str = ""
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: Grammar | None = None
    shown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ConfigError("the prompt is empty", fix="give at least one token")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; the least is 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0 <= self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must lie in 0 … 1")
        if any(not text for text in self.stop):
            raise ConfigError("a stop string is empty", fix="leave it out")
        if self.logprobs is not None and self.logprobs < 0:
            raise ConfigError(f"logprobs is {self.logprobs}; it must be 0 or more")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token's natural log-probability under the model, before temperature and top_p.

    Args:
        id: the chosen token.
        logprob: its log-probability.
        top: the likeliest tokens at this place with theirs, likeliest first.

    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What a stream adds: text that is final, and the tokens it is made of.

    Args:
        text: may be empty, when only the end is reported.
        ids: the tokens whose text has begun to appear; a stop token is not among them.
        finish_reason: set on the last delta alone; content_filter is the server's, whose middleware ended it.
        logprobs: one per id, where asked for.

    """

    text: str
    ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(slots=True)
class Times:
    """When a request came, and how far it got: seconds as `time.perf_counter` has them, 0 for not yet.

    Args:
        asked: it was queued.
        begun: its prompt began to be computed.
        first: it got its first token.
        last: it got its last token so far.
        tokens: how many it has got.
        known: tokens of its prompt that were computed before, for another request.

    """

    asked: float
    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    known: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer.

    Args:
        ids: every token generated, the stop token included.
        text: the answer, without stop token or stop string.
        finish_reason: stop (a stop token or string) or length (the limit was reached).
        logprobs: one per id, or None where not asked for.
        prompt_tokens: length of the prompt.
        kept: how many of ``ids`` the text is made of.

    """

    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None
    prompt_tokens: int
    kept: int


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """How likely the model finds one given answer.

    Args:
        logprobs: natural log-probability of each answer token after the prompt and those before it.

    """

    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log-probability of the whole answer."""
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float:
        """The log-probability per token."""
        return self.total / len(self.logprobs)
