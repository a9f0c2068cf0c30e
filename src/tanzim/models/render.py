"""The one renderer: a conversation to tokens, and which of them are trained.

Training, evaluation, chat and serving all go through it, so a model is asked as it was taught.
The text is the chat template's, tokenised in one piece, so that the ids are those of
``apply_chat_template``; which of them belong to an assistant turn is found in the text (`spans`)
and carried over by the characters each token covers:

- A token that covers the turn's first character is trained, though it may begin earlier (a word
  that swallowed the space before it), unless it is a special token that swallowed white space.
- The end-of-turn token is trained, white space that the template puts after it is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

# One tokenizer thread: templates take longer than tokens here, and the cores are for the model.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.files import read_json
from tanzim.core.records import Example, Json, Message, Provenance, Rendered
from tanzim.models.fit import Overlong, fit
from tanzim.models.fold import fold
from tanzim.models.learn import learn
from tanzim.models.segments import Turn, rendered_tokens, turns_of
from tanzim.models.selftest import check
from tanzim.models.spans import find_span
from tanzim.models.template import DATE, ChatTemplate

__all__ = ["Overlong", "Renderer", "fit"]


class Renderer:
    """Turns conversations into tokens with the model's own chat template.

    Args:
        tokenizer: the base model's.
        train_on: which turns are trained, all of the assistant's or the last; a turn's own weight wins.
        thinking: passed to the template as ``enable_thinking``.

    Raises:
        RenderError: the template cannot be used to train a model that stops, or fails its self-test.

    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        train_on: Literal["assistant", "last"] = "assistant",
        thinking: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._train_on = train_on
        self._template = ChatTemplate(tokenizer, thinking=thinking)
        try:
            self._learnt = learn(self._template)
        except RenderError as error:
            raise RenderError(error.what, where=str(tokenizer.name_or_path), fix=error.fix) from error
        self.stop_ids = self._stop_ids()
        self.self_test()

    @property
    def template(self) -> Json:
        """What a manifest must say for others to render alike."""
        return {
            "source": self._template.source,
            "text": self._template.written(),
            "sha256": self._template.sha256(),
            "default_system": self._learnt.default_system,
            "stop": [str(self._tokenizer.convert_ids_to_tokens(token)) for token in self.stop_ids],
            "stop_ids": list(self.stop_ids),
            "thinking": self._template.thinking,
            "folded": sorted(self._learnt.folds),
            "date": DATE.isoformat(),
        }

    def self_test(self) -> None:
        """Render fixed conversations and check ids, spans, ends and prompts.

        Raises:
            RenderError: something does not hold for this tokenizer; the message says what.

        """
        check(self, self._tokenizer, self._template, self._learnt)

    def render(self, example: Example) -> Rendered:
        """Turn one example (messages or text) into tokens.

        Raises:
            RenderError: the template refuses it, no token would be trained, or a trained turn has no
                end; the message names the example.

        """
        return self.render_many([example])[0]

    def render_many(self, examples: Iterable[Example]) -> list[Rendered]:
        """Turn examples into tokens, tokenised together.

        Raises:
            RenderError: as `render` does.

        """
        batch = list(examples)
        texts, turns = [], []
        for example in batch:
            try:
                text, cuts = self._text(example)
            except RenderError as error:
                raise _named(error, example.provenance) from error
            texts.append(text)
            turns.append(cuts)
        if not batch:
            return []
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [
            self._finish(example, encoded["input_ids"][i], encoded["offset_mapping"][i], turns[i])
            for i, example in enumerate(batch)
        ]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        """Return the ids of a conversation up to where the assistant is to speak.

        Args:
            messages: the turns so far.
            tools: function definitions.

        Raises:
            RenderError: the template refuses these messages.

        """
        turns, left = fold(messages, tools, self._learnt)
        text = self._template.text(turns, left, prompt=True)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _text(self, example: Example) -> tuple[str, list[Turn]]:
        """Return the text to tokenise and its turns."""
        if example.kind == "text":
            return self._raw(example.text)
        if example.kind != "messages":
            raise RenderError(
                f"an example of kind '{example.kind}' is no conversation yet",
                fix="convert it to messages first",
            )
        messages, tools = fold(example.messages, example.tools, self._learnt)
        weights = self._weights(messages)
        if not any(weights):
            raise RenderError(
                "no token of this conversation would be trained",
                fix="it needs an assistant turn whose weight is not 0",
            )
        full = self._template.text(messages, tools)
        spans = {}
        for index, weight in enumerate(weights):
            if weight:
                span = find_span(self._template, self._learnt.markers, full, messages, tools, index)
                if span.end is None or span.end <= span.start:
                    raise RenderError(
                        f"the end of turn {index + 1} would not be trained: the chat template writes no "
                        f"{' or '.join(self._learnt.ends)} after it",
                        fix="train_on: last, or a template that ends every turn",
                    )
                spans[index] = (span.start, span.end, weight)
        return full, turns_of(full, messages, spans, self._learnt.markers.ends)

    def _raw(self, text: str) -> tuple[str, list[Turn]]:
        if not text:
            raise RenderError("the text is empty")
        eos, bos = self._tokenizer.eos_token, self._tokenizer.bos_token
        if eos is None:
            raise RenderError("the tokenizer has no end-of-text token to end a text with")
        ids = self._tokenizer("a").input_ids
        begins = bos is not None and len(ids) > 1 and ids[0] == self._tokenizer.bos_token_id
        start = len(bos) if begins else 0
        full = f"{bos if begins else ''}{text}{eos}"
        turns = [Turn(0, start, "text", 0.0)] if start else []
        return full, [*turns, Turn(start, len(full), "text", 1.0)]

    def _weights(self, messages: Sequence[Message]) -> list[float]:
        """Return the loss weight of each turn."""
        answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
        chosen = set(answers if self._train_on == "assistant" else answers[-1:])
        weights = [0.0] * len(messages)
        for index in answers:
            own = messages[index].weight
            weights[index] = float(own) if own is not None else float(index in chosen)
        return weights

    def _finish(
        self, example: Example, ids: list[int], offsets: list[tuple[int, int]], turns: list[Turn]
    ) -> Rendered:
        special = set(self._tokenizer.all_special_ids) | set(self.stop_ids)
        one = rendered_tokens(ids, offsets, turns, special, example.provenance)
        for segment in one.segments:
            last = one.ids[segment.end - 1]
            if segment.trained and last not in self.stop_ids:
                said = self._tokenizer.decode([last])
                raise _named(
                    RenderError(f"a trained turn ends with {said!r}, which stops no generation"),
                    example.provenance,
                )
        if not any(one.weights):
            raise _named(RenderError("no token would be trained"), example.provenance)
        return one

    def _stop_ids(self) -> tuple[int, ...]:
        """Collect what ends generation: the template's ends, the tokenizer's EOS, the model's own."""
        tokenizer = self._tokenizer
        ids: list[Any] = [tokenizer.convert_tokens_to_ids(end) for end in self._learnt.ends]
        ids.append(tokenizer.eos_token_id)
        path = Path(str(tokenizer.name_or_path)) / "generation_config.json"
        if path.is_file():
            eos = read_json(path).get("eos_token_id")
            ids += eos if isinstance(eos, list) else [eos]
        return tuple(dict.fromkeys(token for token in ids if token is not None))


def _named(error: RenderError, provenance: Provenance) -> RenderError:
    return RenderError(error.what, where=str(provenance), fix=error.fix)
