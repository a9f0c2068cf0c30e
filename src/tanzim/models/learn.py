"""What one template does, learnt from a few probe conversations when the renderer is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import RenderError
from tanzim.core.records import Json, Message, ToolCall
from tanzim.models.spans import Markers, common_prefix
from tanzim.models.template import ChatTemplate

ASKED, ANSWERED, ASKED_AGAIN = "QuestionProbe", "AnswerProbe", "SecondProbe"
GIVEN, CALLED, RETURNED, THOUGHT = "SystemProbe", "ToolProbe", "ResultProbe", "ThoughtProbe"
TOOL: Json = {
    "type": "function",
    "function": {
        "name": CALLED,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
    },
}
QUESTION = Message("user", ASKED)
CALL = Message("assistant", tool_calls=(ToolCall(CALLED, {"x": CALLED}, "probe0001"),))


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a template does with the parts of a conversation.

    Args:
        markers: what it writes around turns.
        folds: parts it has no place for, so that they are written into a turn it does know: any of
            system, tools, tool_calls, tool, thinking.
        default_system: the system prompt it adds where there is none.
        ends: the tokens that end a turn, as text.

    """

    markers: Markers
    folds: frozenset[str]
    default_system: str | None
    ends: tuple[str, ...]


def learn(template: ChatTemplate) -> Learnt:
    """Probe a template.

    Raises:
        RenderError: it refuses the plainest conversation, or ends no answer with a special token.

    """
    special = _special(template.tokenizer)
    plain = template.text([QUESTION, Message("assistant", ANSWERED)])
    if ASKED not in plain or ANSWERED not in plain:
        raise RenderError("the chat template leaves out the question or the answer")
    found = special.search(plain, plain.index(ANSWERED))
    if found is None:
        raise RenderError(
            "the chat template ends no answer with a special token: a model trained so would never stop",
            fix="give the tokenizer a chat template that writes one (chat_template in tokenizer_config.json)",
        )
    ends = [found[0]]
    folds = _folds(template)
    ends += _call_ends(template, special, ends[0], folds)
    pattern = re.compile("|".join(re.escape(end) for end in ends))
    on, off = (_generation_prompt(template, thinking) for thinking in (True, False))
    shared = common_prefix(on, off)
    usual = on if template.thinking else off
    return Learnt(
        markers=Markers(pattern, _ends_between(template, pattern), usual[:shared], len(usual) - shared),
        folds=folds,
        default_system=None if "system" in folds else _default_system(template),
        ends=tuple(ends),
    )


def _special(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Match any special token: longer ones first, as one may begin with another."""
    texts = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts.update(tokenizer.all_special_tokens)
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _keeps(
    template: ChatTemplate, messages: Sequence[Message], word: str, tools: Sequence[Json] = ()
) -> bool:
    try:
        return word in template.text(messages, tools)
    except RenderError:
        return False


def _folds(template: ChatTemplate) -> frozenset[str]:
    answer = Message("assistant", ANSWERED)
    tools = [TOOL]
    folds = set()
    if not _keeps(template, [Message("system", GIVEN), QUESTION, answer], GIVEN):
        folds.add("system")
    if not _keeps(template, [QUESTION, answer], CALLED, tools):
        folds.add("tools")
    if not _keeps(template, [QUESTION, CALL], CALLED):
        folds.add("tool_calls")
    result = Message("tool", RETURNED, tool_call_id="probe0001", name=CALLED)
    if "tool_calls" in folds or not _keeps(template, [QUESTION, CALL, result, answer], RETURNED):
        folds.add("tool")
    if not _keeps(template, [QUESTION, Message("assistant", ANSWERED, thinking=THOUGHT)], THOUGHT):
        folds.add("thinking")
    return frozenset(folds)


def _call_ends(
    template: ChatTemplate, special: re.Pattern[str], usual: str, folds: frozenset[str]
) -> list[str]:
    """Find what ends a turn that calls a tool, where that is another token (Llama 3's ``<|eom_id|>``)."""
    if "tool_calls" in folds:
        return []
    text = template.text([QUESTION, CALL], () if "tools" in folds else [TOOL])
    after = text.rindex(CALLED)
    if usual in text[after:]:
        return []
    found = special.search(text, after)
    return [found[0]] if found else []


def _ends_between(template: ChatTemplate, ends: re.Pattern[str]) -> bool:
    again = [Message("user", ASKED_AGAIN), Message("assistant", ANSWERED[::-1])]
    text = template.text([QUESTION, Message("assistant", ANSWERED), *again])
    if not (ANSWERED in text and ASKED_AGAIN in text):
        raise RenderError("the chat template leaves out turns of a longer conversation")
    return ends.search(text, text.index(ANSWERED), text.index(ASKED_AGAIN)) is not None


def _generation_prompt(template: ChatTemplate, thinking: bool) -> str:
    without = template.text([QUESTION], thinking=thinking)
    with_prompt = template.text([QUESTION], prompt=True, thinking=thinking)
    return with_prompt[common_prefix(without, with_prompt) :]


def _default_system(template: ChatTemplate) -> str | None:
    """Find what the template puts where a system prompt would stand."""
    given = template.text([Message("system", GIVEN), QUESTION])
    alone = template.text([QUESTION])
    before, _, after = given.partition(GIVEN)
    if not (alone.startswith(before) and alone.endswith(after)) or len(alone) < len(before) + len(after):
        return None
    return alone[len(before) : len(alone) - len(after)].strip() or None
