"""Missing values: against pandas' list where it has one, and case by case in both languages."""

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.clean.config import MissingConfig
from tanzim.data.clean.missing import Missing, fold, is_missing, without_context
from tanzim.data.step import Outcome, Removed

# The documented default of pandas.read_csv(na_values), without its -1.#IND kin of old C libraries.
PANDAS = ["", "#N/A", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "<NA>"]


def run(example: Example, **settings: Any) -> tuple[Outcome, Missing]:
    step = Missing(MissingConfig(**settings), Powers(), 0)
    (outcome,) = step.apply([example])
    return outcome, step


def labelled(text: str, label: str) -> Example:
    return Example("labelled", Provenance("a", 1), text=text, label=label)


def talk(question: str, answer: str) -> Example:
    return Example(
        "messages", Provenance("a", 1), messages=(Message("user", question), Message("assistant", answer))
    )


@pytest.mark.parametrize("value", PANDAS)
def test_what_pandas_takes_for_missing_is_missing(value: str) -> None:
    assert is_missing(value)


@pytest.mark.parametrize(
    "value", ["<No Input>.", "No input needed", "—", "...", "- - -", "ندارد", "«ندارد»", "نا معلوم",
              "بدون ورودي", "ثبت‌نشده", "\u200c", " \n", "[deleted]", "TBD", "(خالی)"]
)  # fmt: skip
def test_placeholders_of_both_languages(value: str) -> None:
    assert is_missing(value)


@pytest.mark.parametrize(
    "value",
    ["0", "No", "نه", "42", "Nana", "nan bread", "هیچ‌گاه", "C", "+", "None of them came", "null hypothesis"],
)
def test_values_that_are_there(value: str) -> None:
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("value", "role", "missing"),
    [
        ("None", "text", True), ("None", "answer", False), ("None", "label", False),
        ("هیچ", "answer", False), ("ندارد", "answer", False), ("N/A", "answer", True),
        ("null", "label", True), ("", "answer", True), ("—", "label", True), ("unknown", "label", False),
        ("؟", "answer", True), ("?", "answer", True), ("«؟؟»", "label", True), ("؟!", "text", True),
        ("？", "text", True), ("چی؟", "answer", False), ("2?", "answer", False),
    ],
)  # fmt: skip
def test_an_answer_and_a_class_may_be_none(
    value: str, role: Literal["text", "answer", "label"], missing: bool
) -> None:
    assert is_missing(value, role=role) is missing


def test_the_user_says_what_is_real_and_what_is_not() -> None:
    assert is_missing("To be written!", placeholders={fold("to be written")})
    assert not is_missing("None.", real={fold("none")})
    (outcome, _) = run(labelled("good", "—"), real=["—"])
    assert isinstance(outcome, Example)


def test_labels_are_dropped_filled_or_kept() -> None:
    row = labelled("غذا سرد بود", "N/A")
    dropped, step = run(row)
    assert isinstance(dropped, Removed)
    assert (dropped.reason, dropped.detail) == ("the label is missing", "N/A")
    assert step.counts == {"missing label": 1}
    filled, _ = run(row, label="fill", label_fill="نامعلوم")
    assert isinstance(filled, Example)
    assert (filled.label, filled.text, filled.provenance) == ("نامعلوم", "غذا سرد بود", row.provenance)
    assert run(row, label="keep")[0] == row


def test_questions_answers_and_documents() -> None:
    assert isinstance(run(talk("", "fine"))[0], Removed)
    assert isinstance(run(talk("How?", "N/A"))[0], Removed)
    filled, _ = run(talk("How?", " "), text="fill", text_fill="I do not know.")
    assert isinstance(filled, Example)
    assert filled.messages[1].content == "I do not know."
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}),))
    calling = Example("messages", Provenance("a", 1), messages=(Message("user", "go"), call))
    assert run(calling)[0] == calling
    gone, _ = run(Example("text", Provenance("a", 1), text="ندارد"))
    assert isinstance(gone, Removed)
    assert gone.reason == "the text is missing"
    pair = Example(
        "pair", Provenance("a", 1), messages=(Message("user", "q"),), chosen=(Message("assistant", "n/a"),),
        rejected=(Message("assistant", "no"),),
    )  # fmt: skip
    removed, _ = run(pair)
    assert isinstance(removed, Removed)
    assert removed.reason == "the preferred answer is missing"


def test_a_placeholder_below_a_question_is_cut_off_and_a_context_is_not() -> None:
    outcome, step = run(talk("Name three colours.\n\n<noinput>", "Red, green, blue."))
    assert isinstance(outcome, Example)
    assert outcome.messages[0].content == "Name three colours."
    assert step.counts == {"placeholders cut off a question": 1}
    assert without_context("جمع بزن\n\nندارد") == "جمع بزن"
    assert without_context("Translate.\n\nNo smoke without fire.") == "Translate.\n\nNo smoke without fire."
    assert without_context("No input") == "No input"
    kept = talk("Name three colours.\n\n<noinput>", "Red.")
    assert run(kept, context="keep")[0] == kept


def test_fill_without_a_filling_is_refused() -> None:
    with pytest.raises(ValidationError, match="label_fill is empty"):
        MissingConfig(label="fill")
