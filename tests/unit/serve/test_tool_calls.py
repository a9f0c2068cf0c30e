"""Calls in what a model writes: however it is cut, and whatever only looks like one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.calls import read_calls
from tanzim.serve.tool_formats import Hermes

LOOK = '<tool_call>\n{"name": "look", "arguments": {"a": "می\u200cروم"}}\n</tool_call>'
BARE = '<tool_call>{"name": "now"}</tool_call>'


def read(pieces: list[str]) -> list[Any]:
    """Return texts as they are, neighbours joined, and calls as (name, arguments)."""
    return read_calls(Hermes({}), pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LOOK, [("look", {"a": "می\u200cروم"})]),
        (f"Let me see.\n{LOOK}\n{BARE}\n", ["Let me see.", ("look", {"a": "می\u200cروم"}), ("now", {})]),
        (f"{BARE} and then", [("now", {}), "and then"]),
        ("a <tool_call> b \n", ["a <tool_call> b \n"]),
        ("<tool_call>{half</tool_call>", ["<tool_call>{half</tool_call>"]),
        (r'<tool_call>{"name": "\ud800"}</tool_call>', [r'<tool_call>{"name": "\ud800"}</tool_call>']),
        ("<tool_call>[1]</tool_call>", ["<tool_call>[1]</tool_call>"]),
        ('<tool_call>{"name": 1}</tool_call>', ['<tool_call>{"name": 1}</tool_call>']),
        (
            '<tool_call>{"name": "x", "arguments": "y"}</tool_call>',
            ['<tool_call>{"name": "x", "arguments": "y"}</tool_call>'],
        ),
        (f"<tool_call>oh {BARE}", ["<tool_call>oh", ("now", {})]),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", ["<tool_call>" + "[" * 100_000 + "</tool_call>"]),
        ('<tool_call>{"name": "x"', ['<tool_call>{"name": "x"']),
        ("x <tool", ["x <tool"]),
        (" \n", [" \n"]),
    ],
)
def test_calls_and_texts(text: str, expected: list[Any]) -> None:
    assert read([text]) == expected


@given(
    st.lists(
        st.sampled_from([LOOK, BARE, "<tool_call>", "</tool_call>", "<tool", "{", " ", "\n", "سلام", "a"])
    ),
    st.lists(st.integers(0, 300)),
)
def test_the_cut_makes_no_difference(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert read(pieces) == read([text]) == read(list(text))
