"""Unicode cleaning against the character database and ftfy; what must stay, stays."""

import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.clean.config import UnicodeConfig
from tanzim.data.clean.unicode import Unicode, clean_unicode
from tanzim.data.step import Removed

ODD = (
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\u00ad\x00\x07"
    "\r\n\x85\u2028\u00a0\u3000\ufe0f\u0301\U000e0041"
)
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(ODD + "aéی‌ک 👩🔥")), max_size=40)


@given(TEXTS, st.sampled_from(["NFC", "NFKC", "keep"]))
@examples(300)
def test_cleaning_twice_is_cleaning_once(text: str, form: Literal["NFC", "NFKC", "keep"]) -> None:
    once = clean_unicode(text, form=form, bidi="all")
    assert clean_unicode(once, form=form, bidi="all") == once


@given(TEXTS)
@examples(300)
def test_nothing_is_left_that_the_character_database_calls_control_or_odd_space(text: str) -> None:
    out = clean_unicode(text)
    for character in out:
        category = unicodedata.category(character)
        assert category != "Cs"
        assert category != "Cc" or character in "\t\n"
        assert category not in ("Zs", "Zl", "Zp") or character == " "
    assert unicodedata.is_normalized("NFC", out)
    assert out.count("\u200c") == text.count("\u200c")


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
@examples(200)
def test_what_can_be_seen_stays(text: str) -> None:
    hidden = set("\u115f\u1160\u3164\uffa0")  # letters by their category, without a shape
    expected = unicodedata.normalize(
        "NFC", "".join(c for c in unicodedata.normalize("NFC", text) if c not in hidden)
    )
    assert clean_unicode(text) == expected


@given(st.text(st.sampled_from("ab\x00\x01\x1f\x7f\r\n\u2028\u2029\ufeff é"), max_size=30))
@examples(200)
def test_control_characters_and_line_ends_are_as_ftfy_leaves_them(text: str) -> None:
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False, fix_encoding=False, uncurl_quotes=False, fix_latin_ligatures=False,
        fix_character_width=False, remove_terminal_escapes=False, normalization="NFC",
    )  # fmt: skip
    theirs = ftfy.fix_text(text, config)
    assert clean_unicode(text) == theirs


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("می\u200cخواهم کتاب\u200cها", "می\u200cخواهم کتاب\u200cها"),
        (
            "ه\u200d.ش. 👩\u200d🦰 ❤\ufe0f\u200d🔥 क\u094d\u200dष",
            "ه\u200d.ش. 👩\u200d🦰 ❤\ufe0f\u200d🔥 क\u094d\u200dष",
        ),
        ("سلا\u200dم گل\u200dها", "سلام گلها"),
        ("a\u200db c\u200d\u200dd", "ab cd"),
        ("access = '\u202eresu\u202c'", "access = 'resu'"),
        ("hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all") + "!", "hi!"),
        ("🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000e007f", None),
        ("😀" + "".join(chr(0xFE00 + n) for n in (0, 3, 9)), "😀\ufe00"),
        ("a\ufe01b\ufe02", "ab"),
        ("e\u0301 \u00a0x\u2009y\r\nz\x85w\ufeff", "é  x y\nz\nw"),
        ("سلام\u200f!", "سلام\u200f!"),
    ],
)
def test_cases(before: str, after: str | None) -> None:
    assert clean_unicode(before) == (before if after is None else after)


def test_nfkc_makes_letters_of_shapes_and_keep_does_not() -> None:
    assert clean_unicode("ﻻ ２ ﬁ", form="NFKC") == "لا 2 fi"
    assert clean_unicode("ﻻ ２ ﬁ", form="NFC") == "ﻻ ２ ﬁ"
    assert clean_unicode("e\u0301", form="keep") == "e\u0301"
    odd = "a\u202eb\u00a0c\u200bd\x00"
    kept = clean_unicode(odd, form="keep", control=False, invisible=False, bidi="keep", spaces=False)
    assert kept == odd


def test_the_step_changes_every_turn_but_no_tool_call_and_removes_what_nobody_sees() -> None:
    call = ToolCall("find", {"q": "a\u200bb"})
    turns = (
        Message("system", "s\u200b"),
        Message("user", "u\u00a0v"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "t\u200b"),
        Message("assistant", "w\u200b", thinking="x\u200b"),
    )
    talk = Example("messages", Provenance("t", 1), messages=turns)
    tagged = Example("tagged", Provenance("t", 2), words=("a\u200b",), tags=("O",), text="a\u200b")
    blank = Example("text", Provenance("t", 3), text="\u200b\ufeff")
    step = Unicode(UnicodeConfig(), Powers(), 0)
    out, same, gone = step.apply([talk, tagged, blank])
    assert isinstance(out, Example)
    assert [turn.content for turn in out.messages] == ["s", "u v", "", "t\u200b", "w"]
    assert out.messages[4].thinking == "x"
    assert out.messages[2].tool_calls == (call,)
    assert same is tagged
    assert isinstance(gone, Removed)
    assert gone.reason == "nothing that can be seen"
    assert step.counts == {"invisible character": 5, "unusual space": 1}
