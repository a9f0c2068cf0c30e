"""Calls as each family of models writes them: read alike however they are cut, and found in templates."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from helpers.calls import read_calls
from helpers.families import make
from helpers.properties import examples
from tanzim.infer.text import Detokeniser, special_tokens
from tanzim.models.render import Renderer
from tanzim.serve.config import ServeConfig
from tanzim.serve.tool_calls import ToolCalls
from tanzim.serve.tool_formats import FORMATS, guess_format, open_format

CITY = {"شهر": "شیراز", "why": 'a "b" {[\n', "n": [1, {"x": None}]}
WRITTEN = json.dumps(CITY, ensure_ascii=False)
LOOK, NOW = ("look", CITY), ("now", {})
HERMES = f'<tool_call>{{"name": "look", "arguments": {WRITTEN}}}</tool_call>'
LLAMA = f'{{"name": "look", "parameters": {WRITTEN}}}'
LISTED = f'[TOOL_CALLS] [{{"name": "look", "arguments": {WRITTEN}, "id": "abc"}}]'
NAMED = f"[TOOL_CALLS]look[ARGS]{WRITTEN}"
NEITHER = '{"name": "look", "arguments": "none"}'

CASES: list[tuple[str, str, list[Any]]] = [
    ("hermes", f"Wait.\n{HERMES}", ["Wait.", LOOK]),
    ("hermes", LLAMA, [LLAMA]),
    ("hermes", NAMED, [NAMED]),
    ("llama", LLAMA, [LOOK]),
    ("llama", LLAMA.replace("parameters", "arguments"), [LOOK]),
    ("llama", f" <|python_tag|>{LLAMA}\n", [LOOK]),
    ("llama", f'{LLAMA}; {{"name": "now", "parameters": {{}}}}', [LOOK, NOW]),
    ("llama", f"{LLAMA} is what I would write.", [f"{LLAMA} is what I would write."]),
    ("llama", f"{LLAMA}; {NEITHER}", [f"{LLAMA}; {NEITHER}"]),
    ("llama", f"So: {LLAMA}", [f"So: {LLAMA}"]),
    ("llama", LLAMA[:-1], [LLAMA[:-1]]),
    ("llama", '{"name": "Sara"}', ['{"name": "Sara"}']),
    ("llama", "{name: look} ", ["{name: look} "]),
    ("llama", "<|python_tag|>print(1)", ["<|python_tag|>print(1)"]),
    ("llama", "<|py", ["<|py"]),
    ("llama", "< 3", ["< 3"]),
    ("llama", " \n", [" \n"]),
    ("llama", HERMES, [HERMES]),
    ("llama", '{"a": ' * 100_000, ['{"a": ' * 100_000]),
    ("llama", '{"a": ' * 20_000 + "}" * 20_000, ['{"a": ' * 20_000 + "}" * 20_000]),
    ("mistral", LISTED, [LOOK]),
    ("mistral", f"Wait.\n{NAMED} \n[TOOL_CALLS]now[ARGS] {{}}", ["Wait.", LOOK, NOW]),
    ("mistral", '[TOOL_CALLS][{"name": "now"}, {"name": "now", "arguments": {}}]', [NOW, NOW]),
    ("mistral", f"[TOOL_CALLS]look[CALL_ID]a1B2c3D4e[ARGS]{WRITTEN}", [LOOK]),
    ("mistral", f'[TOOL_CALLS]{{"name": "look", "arguments": {WRITTEN}}} and', [LOOK, "and"]),
    ("mistral", f"[TOOL_CALLS] [{NEITHER}]", [f"[TOOL_CALLS] [{NEITHER}]"]),
    ("mistral", f"[TOOL_CALLS]oh no {NAMED}", ["[TOOL_CALLS]oh no", LOOK]),
    ("mistral", f"[TOOL_CALLS]{NAMED}", ["[TOOL_CALLS]", LOOK]),
    ("mistral", "[TOOL_CALLS][]", ["[TOOL_CALLS][]"]),
    ("mistral", "[TOOL_CALLS] ", ["[TOOL_CALLS] "]),
    ("mistral", NAMED[:-1], [NAMED[:-1]]),
    ("mistral", "see [TOOL", ["see [TOOL"]),
    ("mistral", "[1, 2] ", ["[1, 2] "]),
    ("mistral", LLAMA, [LLAMA]),
]


def read(format: str, pieces: list[str]) -> list[Any]:
    """Return texts as they are, neighbours joined, and calls as (name, arguments)."""
    return read_calls(FORMATS[format]({}), pieces)


@pytest.mark.parametrize(("format", "text", "expected"), CASES)
def test_calls_and_texts(format: str, text: str, expected: list[Any]) -> None:
    assert read(format, [text]) == expected
    if len(text) < 1000:
        assert read(format, list(text)) == expected
        for cut in range(1, len(text)):
            assert read(format, [text[:cut], text[cut:]]) == expected, text[:cut]


PARTS = [
    HERMES,
    LLAMA,
    LISTED,
    NAMED,
    NEITHER,
    "[TOOL_CALLS]",
    "[TOOL",
    "[ARGS]",
    "[CALL_ID]",
    "now",
    "now[ARGS]{}",
]
PARTS += [
    "<|python_tag|>",
    "<|",
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ";",
    " ",
    "\n",
    "سلام",
    '{"name": "now", "parameters": {}}',
]


@examples(300)
@given(st.sampled_from(list(FORMATS)), st.lists(st.sampled_from(PARTS)), st.lists(st.integers(0, 400)))
def test_the_cut_makes_no_difference(format: str, parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert read(format, pieces) == read(format, [text]) == read(format, list(text))


def test_plain_text_is_not_held_back() -> None:
    for format in FORMATS:
        calls = ToolCalls(FORMATS[format]({}))
        assert calls.push("Hello [you] <there> {") == ["Hello [you] <there> {"]


def test_ids_are_such_as_the_templates_take() -> None:
    calls = ToolCalls(FORMATS["mistral"]({}))
    ids = [call["id"] for call in calls.push(NAMED + LISTED) if isinstance(call, dict)]
    assert len(set(ids)) == 2
    assert all(len(id_) == 9 and id_.isalnum() for id_ in ids)  # or Mistral's templates refuse them


@pytest.mark.parametrize(
    ("family", "format"),
    [
        ("qwen3", "hermes"),
        ("llama3", "llama"),
        ("mistral", "mistral"),
        ("gemma", "hermes"),  # knows no tools, and is told to write <tool_call>
        ("chatml", "hermes"),  # writes <call>
    ],
)
def test_the_chat_template_chooses(family: str, format: str) -> None:
    tokenizer = make(family)
    prompt = Renderer(tokenizer).prompt
    found, why = guess_format(tokenizer, prompt)
    assert found == format
    assert ("no format" in why) == (family == "chatml")
    assert open_format(ServeConfig().tool_format, tokenizer, prompt).name == format
    assert open_format("llama", tokenizer, prompt).name == "llama"


def test_special_tokens_that_mark_calls_are_in_the_text() -> None:
    tokenizer = make("mistral")
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("[ARGS]", special=True)]})
    ids = tokenizer.encode('[TOOL_CALLS]look[ARGS]{"days": 3}</s>', add_special_tokens=False)
    mistral = FORMATS["mistral"](special_tokens(tokenizer))

    def text(shown: tuple[int, ...]) -> str:
        detokeniser = Detokeniser(tokenizer, shown)
        return "".join(map(detokeniser.push, ids)) + detokeniser.finish()

    assert "[" not in text(())
    shown = text(mistral.shown)
    assert shown.replace(" ", "") == '[TOOL_CALLS]look[ARGS]{"days":3}'
    assert read("mistral", [shown]) == [("look", {"days": 3})]
