"""Answers that keep to a JSON schema or a regular expression: which tokens may come next.

The parsing is llguidance's (https://github.com/guidance-ai/llguidance): at each token it says which of the
vocabulary can go on, and the others' logits become −∞.

Legend: V vocabulary, W words of 32 bits.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.infer.request import Grammar

# One space at most between the parts of JSON: a model that may write any number may never stop.
KEPT = 32  # compiled grammars
JSON_OPTIONS = {"whitespace_pattern": "[ ]?"}


class Grammars:
    """Makes matchers for one tokenizer.

    Args:
        tokenizer: a fast transformers tokenizer.
        vocabulary: how many logits the model gives.
        stop_ids: tokens that end an answer; allowed where the grammar is complete.

    """

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: Sequence[int]) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._stop_ids = list(stop_ids) or [tokenizer.eos_token_id]
        self._compiled: OrderedDict[Grammar, Any] = OrderedDict()  # the last used at the end
        self._lock = threading.Lock()

    @cached_property
    def _tokens(self) -> Any:  # noqa: ANN401 - a compiled class
        hf = need("llguidance.hf", "serve")
        try:
            return hf.from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=self._stop_ids)
        except ValueError as error:
            raise ConfigError(f"answers of this model cannot be held to a grammar: {error}") from error

    def matcher(self, grammar: Grammar) -> Matcher:
        """Return what follows an answer from its first token on; compiled once for many, by any thread.

        Raises:
            ConfigError: the schema or the expression is wrong, or has what llguidance does not know.
            MissingExtra: llguidance is not installed.

        """
        with self._lock:
            inner = self._compiled.pop(grammar, None)
        if inner is None:
            inner = self._compile(grammar)
        with self._lock:
            self._compiled[grammar] = inner
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
            return Matcher(inner.deep_copy(), self._vocabulary)

    def _compile(self, grammar: Grammar) -> Any:  # noqa: ANN401 - a compiled class
        llguidance: Any = need("llguidance", "serve")
        if grammar.type == "regex":
            text = llguidance.LLMatcher.grammar_from_regex(grammar.text)
        elif grammar.type == "lark":
            text = llguidance.LLMatcher.grammar_from_lark(grammar.text)
        else:
            schema = _schema(grammar)
            try:
                text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)
            except ValueError as error:  # nested too deep
                raise ConfigError(f"the JSON schema cannot be used: {error}") from error
        wrong = llguidance.LLMatcher.validate_grammar(text, self._tokens)
        inner = llguidance.LLMatcher(self._tokens, text)
        # Entered once: some faults show only then, such as a rule that is nothing but itself.
        entered = Matcher(inner.deep_copy(), self._vocabulary).entered()
        wrong = entered.error or ("" if wrong.startswith("WARNING") else wrong.strip())
        if wrong:
            what = {"regex": "the regular expression", "lark": "the grammar"}.get(
                grammar.type, "the JSON schema"
            )
            raise ConfigError(f"{what} cannot be used: {wrong}")
        return inner


class Matcher:
    """Follows one answer.

    Args:
        inner: llguidance's matcher.
        vocabulary: V.

    """

    def __init__(self, inner: Any, vocabulary: int) -> None:  # noqa: ANN401 - a compiled class
        self._inner = inner
        self._vocabulary = vocabulary
        self._mask_W = torch.zeros(-(-vocabulary // 32), dtype=torch.int32)

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, and nothing can follow."""
        return bool(self._inner.is_stopped())

    @property
    def error(self) -> str | None:
        """Why the grammar cannot be followed any longer, such as for its size."""
        # Its first line: the state of the parser is nobody's business.
        return str(self._inner.get_error()).partition("\n")[0] if self._inner.is_error() else None

    def forced(self) -> list[int]:
        """Return the tokens that must come next, as the tokenizer would cut what they say."""
        return [] if self.error is not None or self.ended else list(self._inner.compute_ff_tokens())

    def entered(self) -> Matcher:
        """Work out which tokens can come next."""
        self._inner.unsafe_compute_mask_ptr(self._mask_W.data_ptr(), 4 * self._mask_W.numel())
        return self

    def masked(self, logits_V: Tensor) -> Tensor:
        """Return the logits with −∞ for every token that cannot come next."""
        self.entered()
        if self.error is not None:
            return logits_V
        bits_W32 = (self._mask_W[:, None] >> torch.arange(32)) & 1
        allowed_V = bits_W32.flatten()[: self._vocabulary].bool().to(logits_V.device)
        return logits_V.masked_fill(~allowed_V, -torch.inf)

    def take(self, token: int) -> None:
        """Note the token that was chosen."""
        if self.error is None:
            self._inner.consume_token(token)


def _schema(grammar: Grammar) -> str:
    if grammar.type == "json_object":
        return '{"type": "object"}'
    try:
        json.loads(grammar.text)
    except ValueError as error:
        raise ConfigError(f"the JSON schema is not JSON: {error}") from error
    return grammar.text
