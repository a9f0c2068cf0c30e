"""What a reviewer sees: texts turned as other libraries turn them, harmless, and within the window."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tanzim.cli.review import _first, _unfinished
from tanzim.cli.review_screen import View, frame, keys
from tanzim.cli.turned import right_to_left, row, rows, safe, width
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.label.session import Progress

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "turned_text.json").read_text(encoding="utf-8"))
STYLE = re.compile(r"\x1b\[\d*m")
MIRRORS = str.maketrans(">)]}»", "<([{«")  # python-bidi leaves them as they are
MARK = "\u0654"  # it leaves a mark before its letter, where no terminal would put it on


@pytest.mark.parametrize("text", GOLDEN["turned"])
def test_text_is_turned_as_by_python_bidi_and_arabic_reshaper(text: str) -> None:
    expected = re.sub(f"{MARK}(.)", rf"\1{MARK}", re.sub("[\u200c\u200d]", "", GOLDEN["turned"][text]))
    assert row(text, turn=True).translate(MIRRORS) == expected.translate(MIRRORS)


def test_brackets_are_mirrored_where_text_runs_backwards() -> None:
    assert row("(ا) «ب»", turn=True) == "«ﺏ» (ﺍ)"
    assert row("الف) یک", turn=True).endswith("(ﻒﻟﺍ")
    assert row("f(x) [y]", turn=True) == "f(x) [y]"


def test_half_space_ends_a_letter_and_a_joiner_does_not() -> None:
    assert row("می\u200cخ", turn=True) == "ﺥﯽﻣ"
    assert row("ه\u200d.", turn=True) == ".\ufeeb"  # the first form of heh
    assert row("لا", turn=True) == "ﻻ"


def test_rows_are_wrapped_in_order_and_stand_at_the_right() -> None:
    text = "یک دو سه چهار پنج"
    assert [one.split() for one in rows(text, 7, turn=False)] == [["یک", "دو"], ["سه", "چهار"], ["پنج"]]
    assert all(len(one) == 7 for one in rows(text, 7, turn=True))
    assert rows("abcdefgh ij", 3, turn=False) == ["abc", "def", "gh", "ij"]
    assert rows("日本語", 4, turn=False) == ["日本", "語"]
    assert rows("a\n\nb", 9, turn=False) == ["a", "", "b"]


letters = st.text(st.characters(codec="utf-8") | st.sampled_from("سلام‌ \n(۱)1a\x1b\u202e"), max_size=60)


@settings(max_examples=200, deadline=None)
@given(letters, st.integers(2, 30), st.booleans())
def test_any_text_stays_within_its_columns_and_gives_no_orders(text: str, columns: int, turn: bool) -> None:
    shown = rows(text, columns, turn=turn)
    for line in shown:
        assert width(line) <= columns
        assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in line)
        assert not set(line) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
        line.encode()
    if not turn:  # nothing is lost but the spaces at which it is wrapped
        assert "".join(shown).replace(" ", "") == safe(text).replace(" ", "").replace("\n", "")


def test_escapes_of_a_text_are_shown_and_not_obeyed() -> None:
    assert rows("a\x1b[2Jb\x07\t\x9b1m", 40, turn=False) == ["a␛[2Jb␇    \ufffd1m"]
    assert not right_to_left("12 a سلام")
    assert right_to_left("۱۲ - سلام abc")


def view(example: Example, labels: list[str], **more: object) -> View:
    return View("sara", labels, example, Progress(3, 1, 20), Counter(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("columns", "lines"), [(100, 30), (60, 10), (75, 12), (150, 40)])
@pytest.mark.parametrize("labels", [2, 9, 77, 400])
def test_a_frame_fits_the_window(columns: int, lines: int, labels: int) -> None:
    text = "متن بلند برای آزمایش. " * 300
    example = Example("text", Provenance("f", 1), text=text)
    names = [f"برچسب {number}" for number in range(labels)]
    for turn in (False, True):
        shown, last = frame(view(example, names, turn=turn, top=5), columns, lines)
        assert len(shown) == lines
        assert all(width(STYLE.sub("", line)) <= columns for line in shown)
        assert last > 0
        assert "q quit" in STYLE.sub("", shown[-2])
    assert len(frame(view(example, names), 20, 5)[0]) == 1


def test_a_frame_shows_what_a_reviewer_needs_and_no_label_it_has() -> None:
    example = Example("labelled", Provenance("f", 1), text="Is it good?", label="secret")
    shown = "\n".join(frame(view(example, ["yes", "no"], before="no"), 80, 20)[0])
    plain = STYLE.sub("", shown)
    assert "4 of 20" in plain
    assert "1 skipped" in plain
    assert "1 yes    2 no" in plain
    assert "before: no" in plain
    assert "secret" not in plain
    assert "turn letters" not in plain  # there is nothing to turn
    decide = View("b", ["yes", "no"], example, Progress(0, 0, 1), Counter({"yes": 2, "no": 1}))
    assert "annotators said: yes × 2, no × 1" in STYLE.sub("", "\n".join(frame(decide, 80, 20)[0]))


def test_conversations_show_who_speaks() -> None:
    turns = (Message("user", "سلام"), Message("assistant", "Hello!"))
    example = Example("messages", Provenance("f", 1), messages=turns)
    shown = [STYLE.sub("", line).strip() for line in frame(view(example, ["a", "b"]), 60, 20)[0]]
    assert [line for line in shown if line in ("user", "سلام", "assistant", "Hello!")] == [
        "user",
        "سلام",
        "assistant",
        "Hello!",
    ]


def test_keys_have_as_many_digits_as_they_need() -> None:
    assert keys(["a", "b"]) == ["1", "2"]
    assert keys(["x"] * 12)[:2] == ["01", "02"]
    assert len(set(keys(["x"] * 150))) == 150


@pytest.mark.parametrize(
    ("typed", "found"),
    [("\x1b[A1", "\x1b[A"), ("\x1b[5~x", "\x1b[5~"), ("\x1bx", "\x1b"), ("س1", "س"), ("\x1bOBu", "\x1bOB")],
)
def test_keys_are_told_apart(typed: str, found: str) -> None:
    assert not _unfinished(typed)
    assert _first(typed) == (found, typed[len(found) :])


def test_a_key_that_has_only_begun_is_waited_for() -> None:
    assert _unfinished("\x1b")
    assert _unfinished("\x1b[5")
    assert not _unfinished("\x1b[5~")
