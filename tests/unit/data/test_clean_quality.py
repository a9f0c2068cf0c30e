"""Quality rules against datatrove's decisions (a golden file made by it), and what the step does."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.clean.config import PersianRules, QualityConfig, QualityRules, RepetitionConfig
from tanzim.data.clean.quality import Quality, cut_lines, poor_quality
from tanzim.data.clean.repetition import repeats
from tanzim.data.step import Outcome, Removed

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "datatrove_decisions.json").read_text(encoding="utf-8"))["cases"]


def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make_datatrove_decisions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = maker()
TEXTS = {"en": MAKER.documents(MAKER.ENGLISH), "fa": MAKER.documents(MAKER.PERSIAN)}
BARE = dict.fromkeys(QualityRules.model_fields) | {
    "lorem_ipsum": False,
    "curly_bracket": False,
    "short_line_characters": 30,
    "min_lines": 1,
}
GOPHER = QualityRules.model_validate(
    BARE
    | {
        "min_words": 50,
        "max_words": 100_000,
        "min_word_characters": 3.0,
        "max_word_characters": 10.0,
        "max_hashes": 0.1,
        "max_ellipses": 0.1,
        "max_bullet_lines": 0.9,
        "max_ellipsis_lines": 0.3,
        "min_alphabetic_words": 0.8,
        "min_stop_words": 2,
    }
)
FINEWEB = QualityRules.model_validate(
    BARE
    | {
        "min_punctuated_lines": 0.12,
        "max_short_lines": 0.67,
        "max_duplicate_characters": 0.1,
        "max_newlines": 0.3,
    }
)
C4 = QualityRules.model_validate(BARE | {"min_sentences": 5, "lorem_ipsum": True, "curly_bracket": True})
REASONS = {
    "gopher_short_doc": "too few words",
    "gopher_long_doc": "too many words",
    "gopher_below_avg_threshold": "words too short",
    "gopher_above_avg_threshold": "words too long",
    "gopher_too_many_hashes": "too many # signs",
    "gopher_too_many_ellipsis": "too many ellipses",
    "gopher_too_many_bullets": "too many bullet points",
    "gopher_too_many_end_ellipsis": "too many open ends",
    "gopher_below_alpha_threshold": "too few words with letters",
    "gopher_enough_stop_words": "too few stop words",
    "line_punct_ratio": "too few lines that end a sentence",
    "short_line_ratio": "too many short lines",
    "char_dup_ratio": "too many characters in repeated lines",
    "list_ratio": "a list rather than a text",
    "lorem_ipsum": "placeholder text",
    "curly_bracket": "a curly bracket",
    "too_few_sentences": "too few sentences",
}
ids = [f"{case['language']} {case['name']}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_gopher_and_fineweb_decide_as_datatrove_does(case: dict[str, Any]) -> None:
    text = TEXTS[case["language"]][case["name"]]
    for rules, name in ((GOPHER, "gopher_quality"), (FINEWEB, "fineweb")):
        theirs = case["decisions"][name]
        ours = poor_quality(text, rules, case["language"])
        assert (ours or ("",))[0] == REASONS.get(theirs, theirs), name


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_c4_cuts_and_decides_as_datatrove_does(case: dict[str, Any]) -> None:
    text = TEXTS[case["language"]][case["name"]]
    config = QualityConfig(
        citations=True,
        unpunctuated_lines=case["language"] == "en",
        min_line_words=3,
        max_token_characters=1000,
    )
    cut = cut_lines(text, config)
    theirs = case["decisions"]["c4"]
    ours = poor_quality(cut, C4, case["language"]) if cut.strip() else ("too few sentences", "")
    assert (ours or ("",))[0] == REASONS.get(theirs, theirs)
    if not theirs:
        assert [line.strip() for line in cut.split("\n") if line.strip()] == case.get("c4_text", text).split(
            "\n"
        )


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_repetition_decides_as_datatrove_does(case: dict[str, Any]) -> None:
    config = RepetitionConfig(min_words=1, max_word_run=None, max_phrase_run=None, max_character_run=None)
    ours = repeats(TEXTS[case["language"]][case["name"]], config)
    theirs = case["decisions"]["gopher_repetition"]
    assert bool(ours) == bool(theirs), (ours, theirs)
    if ours and theirs.startswith("top_"):
        assert ours[0] == f"one run of {theirs.split('_')[1]} words again and again"


def test_every_rule_of_the_golden_file_fires_in_both_languages() -> None:
    for language in ("en", "fa"):
        fired = {r for c in CASES if c["language"] == language for r in c["decisions"].values()} & set(
            REASONS
        )
        assert len(fired) >= 14, sorted(set(REASONS) - fired)


def example(text: str, row: int = 1, **fields: Any) -> Example:
    return Example(**{"kind": "text", "provenance": Provenance("a.txt", row), "text": text} | fields)


def run(config: QualityConfig, examples: Iterable[Example]) -> tuple[list[Outcome], Quality]:
    step = Quality(config, Powers(), 0)
    return list(step.apply(examples)), step


def test_a_persian_text_is_held_to_persian_thresholds() -> None:
    article = TEXTS["fa"]["article"]
    assert poor_quality(article, PersianRules(), "fa") is None
    apart = "\n".join(" ".join(line.replace(" ", "").replace("\u200c", "")) for line in MAKER.PERSIAN)
    glued = "\n".join(line.replace(" ", "", 13) for line in MAKER.PERSIAN) + " با هم رفتند." * 3
    (whole, broken, joined), _ = run(
        QualityConfig(persian=PersianRules(min_words=20)), [example(article), example(apart), example(glued)]
    )
    assert whole == example(article)
    assert isinstance(broken, Removed)
    assert broken.reason == "words too short"
    assert isinstance(joined, Removed)
    assert joined.reason == "words too long"


def test_arabic_letters_do_not_hide_persian_stop_words() -> None:
    text = TEXTS["fa"]["article"].replace("ی", "ي").replace("ک", "ك")
    assert poor_quality(text, QualityRules.model_validate(BARE | {"min_stop_words": 5}), "fa") is None


def test_lines_are_cut_and_counted_and_the_rest_is_kept() -> None:
    notice = "برای دیدن همه‌ی صفحه جاوااسکریپت را روشن کنید."
    terms = "با ورود به سایت، سیاست حفظ حریم خصوصی ما را می‌پذیرید."
    text = "\n".join([notice, *MAKER.PERSIAN, terms])
    (out,), step = run(QualityConfig(), [example(text)])
    assert isinstance(out, Example)
    assert out.text == "\n".join(MAKER.PERSIAN)
    assert out.provenance == Provenance("a.txt", 1)
    assert step.counts == {"lines cut: JavaScript": 1, "lines cut: policy": 1}


def test_only_the_kinds_that_are_named_are_judged() -> None:
    turns = (Message("user", "2 + 2?"), Message("assistant", "4"))
    talk = example("", kind="messages", messages=turns)
    outcomes, step = run(QualityConfig(), [talk])
    assert outcomes == [talk]
    assert step.counts == {"not judged": 1}
    (removed,), _ = run(QualityConfig(kinds=("messages",)), [talk])
    assert isinstance(removed, Removed)
    assert removed.reason == "too few words"


def test_one_line_without_an_end_is_no_list() -> None:
    line = TEXTS["fa"]["article in one line"].rstrip(".")
    assert poor_quality(line, PersianRules(), "fa") is None
    assert poor_quality(line, FINEWEB, "fa") == ("too few lines that end a sentence", "0.00 of the lines")


def test_an_empty_document_is_no_crash() -> None:
    rules = QualityRules.model_validate(BARE)
    assert poor_quality("", rules) is None
    assert poor_quality("…\n\n#", rules) is None
