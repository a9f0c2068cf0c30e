"""Text comparison, against hand-written truths and the Unicode database."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tanzim.score.text import final_number, normalise, script, scripts, visible, words


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("كتاب علي", "کتاب علی", True),  # Arabic and Persian keyboards
        ("می\u200cرود", "میرود", True),  # the half-space is invisible
        ("می\u200cرود", "می رود", False),  # a full space is not
        ("ســلام", "سلام", True),  # kashida
        ("٣ کتاب", "۳ کتاب", True),  # Arabic-Indic and Persian digits look the same
        ("۳ کتاب", "3 کتاب", False),  # Latin ones do not
        ("cafe\u0301", "caf\u00e9", True),  # NFC
        ("  a\n b\t", "a b", True),
        ("Yes", "yes", False),
        ("\u200fسلام\u200e", "سلام", True),
    ],
)
def test_normalise_unifies_what_readers_cannot_tell_apart(left: str, right: str, equal: bool) -> None:
    assert (normalise(left) == normalise(right)) is equal


@given(st.text())
def test_normalise_is_stable(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9 * 2 = 18\n#### 18", "18"),
        ("#### 1,234.50 dollars, not 7", "1234.5"),
        ("16-3=13", "13"),
        ("the balance is -5", "-5"),
        ("جواب ۱۲٬۳۴۵ تومان", "12345"),
        ("دما ۳٫۵ درجه", "3.5"),
        ("٤٢", "42"),
        ("$18.", "18"),
        ("first 3, then 4", "4"),
        ("#### none, though 6 came before", "6"),
        ("no number", None),
        ("1,2", "2"),
    ],
)
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == (None if number is None else Decimal(number))


def test_words_keep_every_script() -> None:
    assert words("Hello, WORLD 42!") == ["hello", "world", "42"]
    assert words("کتاب\u200cها را می‌خوانم.") == ["کتابها", "را", "میخوانم"]
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]  # vowel signs are marks, not letters
    assert words("東京 tower") == ["東", "京", "tower"]


def test_scripts_ignore_the_shared_instruction() -> None:
    frame = "Classify the text. Answer with one of: happy, sad.\n\n{}\n\nThank you very much."
    assert scripts([frame.format("غذا سرد بود"), frame.format("good food")]) == ["Arabic", "Latin"]
    assert scripts(["سلام", "سلام"]) == ["Arabic", "Arabic"]
    assert scripts([]) == []
    assert script("12 !") == "none"
    assert script("привет") == "Cyrillic"
    assert script("東京") == "CJK"


def test_thinking_is_not_the_answer() -> None:
    assert visible("<think>4 or 5?</think>\n\n4") == "4"
    assert visible(" 4 ") == "4"
