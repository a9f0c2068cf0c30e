"""Conversations for encoder-decoder models: what was said before is the source, the last answer the target.

Such models have no chat template. A source of one question is the question itself (a system prompt stands
before it, with an empty line between); where turns went before, each is named by its role. Source and target
are tokenised as the tokenizer does it by itself, with the special tokens it adds, so that anyone who asks
the trained model with plain transformers asks it as it was taught.

The tokens of an example are those of the source, then those of the target; only the target's have a weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.records import Example, Json, Message, Rendered, Segment


class SourceTarget:
    """Turns conversations into the source and target tokens of an encoder-decoder model.

    Args:
        tokenizer: the base model's.

    Raises:
        RenderError: the tokenizer ends no target, so that a model trained so would never stop.

    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        end = tokenizer.eos_token_id
        if end is None or tokenizer(text_target="a").input_ids[-1] != end:
            raise RenderError(
                "the tokenizer puts no end-of-text token behind a target: the model would never stop",
                where=str(tokenizer.name_or_path),
                fix="use the tokenizer that belongs to the encoder-decoder model",
            )
        self.stop_ids: tuple[int, ...] = (int(end),)

    @property
    def template(self) -> Json:
        """What a manifest must say for others to render alike."""
        return {"source": "tokenizer", "stop": [self._tokenizer.eos_token], "stop_ids": list(self.stop_ids)}

    def render(self, example: Example) -> Rendered:
        """Turn one example into tokens.

        Raises:
            RenderError: as `render_many` does.

        """
        return self.render_many([example])[0]

    def render_many(self, examples: Iterable[Example]) -> list[Rendered]:
        """Turn examples into tokens, tokenised together.

        Raises:
            RenderError: an example is no conversation that ends with an answer in words; the message
                names it.

        """
        batch = list(examples)
        if not batch:
            return []
        texts = [self._texts(example) for example in batch]
        sources = self._tokenizer([source for source, _ in texts], verbose=False).input_ids
        targets = self._tokenizer(text_target=[target for _, target in texts], verbose=False).input_ids
        rows = zip(batch, sources, targets, strict=True)
        return [_rendered(example, source, target) for example, source, target in rows]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        """Return the source tokens of a conversation up to where the model is to answer.

        Args:
            messages: the turns so far.
            tools: function definitions; there must be none.

        Raises:
            RenderError: nothing was said, or it is about functions.

        """
        ids: list[int] = self._tokenizer(source_text(messages, tools), verbose=False).input_ids
        return ids

    def _texts(self, example: Example) -> tuple[str, str]:
        try:
            if example.kind != "messages" or not example.messages:
                raise RenderError(f"an example of kind '{example.kind}' has no question and answer")
            answer = example.messages[-1]
            if answer.role != "assistant" or not answer.content.strip() or answer.weight == 0:
                raise RenderError("the conversation does not end with an answer in words to train on")
            return source_text(example.messages[:-1], example.tools), answer.content
        except RenderError as error:
            raise RenderError(error.what, where=str(example.provenance), fix=error.fix) from error


def source_text(messages: Sequence[Message], tools: Sequence[Json] = ()) -> str:
    """Return what stands before an answer, as one text.

    Raises:
        RenderError: nothing does, or functions are to be called.

    """
    if tools or any(message.role == "tool" or message.tool_calls for message in messages):
        shown = json.dumps(tools[0], ensure_ascii=False)[:60] if tools else "a call"
        raise RenderError(
            f"an encoder-decoder model has no form for functions ({shown})",
            fix="leave tools out, or use a causal model with a chat template",
        )
    if not any(message.content.strip() for message in messages):
        raise RenderError("there is no question before the answer")
    if all(message.role in ("system", "user") for message in messages):
        return "\n\n".join(message.content for message in messages)
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _rendered(example: Example, source: Sequence[int], target: Sequence[int]) -> Rendered:
    border, end = len(source), len(source) + len(target)
    segments = (Segment(0, border, "user", False), Segment(border, end, "assistant", True))
    weights = (0.0,) * border + (1.0,) * len(target)
    return Rendered((*source, *target), weights, segments, example.provenance)
