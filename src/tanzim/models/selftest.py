"""What must hold for a tokenizer and its template before anything is trained with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.records import Example, Message, Provenance, Rendered
from tanzim.models.fold import fold
from tanzim.models.learn import CALL, TOOL, Learnt
from tanzim.models.template import ChatTemplate

if TYPE_CHECKING:
    from tanzim.models.render import Renderer

_HERE = Provenance("self-test", 1)
_ANSWERS = ("Hello, 2 of them.", "نیم‌فاصله 🙂 ok")
_PLAIN = (
    Message("user", "How many?"),
    Message("assistant", _ANSWERS[0], weight=1.0),
    Message("user", "سلام"),
    Message("assistant", _ANSWERS[1], weight=1.0),
)


def check(
    renderer: Renderer, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, learnt: Learnt
) -> None:
    """Render two fixed conversations and check every promise of the renderer on them.

    Raises:
        RenderError: a promise does not hold; the message says which.

    """
    turns = _PLAIN if learnt.markers.between else _PLAIN[:2]
    one = renderer.render(Example("messages", _HERE, turns))
    text = template.text(*fold(turns, (), learnt))
    plain: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    _demand(list(one.ids) == plain, "the tokens are not those of apply_chat_template", tokenizer)
    answers = [segment for segment in one.segments if segment.trained]
    _demand(len(answers) == len(turns) // 2, "the trained turns are not the assistant's", tokenizer)
    for segment, answer in zip(answers, _ANSWERS, strict=False):
        trained = str(tokenizer.decode(list(one.ids[segment.start : segment.end]), skip_special_tokens=False))
        said, end = _bare(trained, learnt)
        known = str(tokenizer.decode(tokenizer(answer, add_special_tokens=False)["input_ids"]))
        _demand(_squeezed(known) in _squeezed(said), f"a trained turn reads {trained!r}", tokenizer)
        _demand(bool(end), f"a trained turn has no end: {trained!r}", tokenizer)
    _check_prompt(renderer, one, turns, tokenizer)
    renderer.render(Example("messages", _HERE, (turns[0], CALL), tools=(TOOL,)))


def _check_prompt(
    renderer: Renderer, one: Rendered, turns: tuple[Message, ...], tokenizer: PreTrainedTokenizerBase
) -> None:
    """The prompt for the last turn must be what stands before it, except where thinking is written."""
    prompt = renderer.prompt(turns[:-1])
    start = [segment for segment in one.segments if segment.trained][-1].start
    _demand(
        list(one.ids[:start]) == prompt[:start] or prompt == list(one.ids[: len(prompt)]),
        "the generation prompt is not what stands before a trained turn",
        tokenizer,
    )


def _bare(text: str, learnt: Learnt) -> tuple[str, str]:
    end = next((end for end in learnt.ends if text.rstrip().endswith(end)), "")
    return text.rstrip().removesuffix(end), end


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _demand(holds: bool, what: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if not holds:
        raise RenderError(
            f"the renderer's self-test failed: {what}",
            where=str(tokenizer.name_or_path),
            fix="check the chat template and special tokens of this tokenizer",
        )
