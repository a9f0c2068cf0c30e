"""Metrics against rouge-score, sacrebleu, the json module, and hand-counted answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics import CHRF

from tanzim.score import metrics

LABELS = ("spam", "ham")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("spam", "spam"),
        (' "Spam." ', "spam"),
        ("ham\nbecause it is from a friend", "ham"),
        ("I think this is spam, clearly.", "spam"),
        ("spam or ham", None),
        ("hamster", None),
        ("", None),
        ("<think>ham?</think>spam", "spam"),
    ],
)
def test_find_label(answer: str, label: str | None) -> None:
    assert metrics.find_label(answer, LABELS) == label
    assert metrics.accuracy(answer, "spam", LABELS).value == float(label == "spam")


def test_find_label_takes_the_longer_name_and_persian_letters() -> None:
    assert metrics.find_label("this is not spam", ["spam", "not spam"]) == "not spam"
    assert metrics.find_label("راضي", ["راضی", "ناراضی"]) == "راضی"
    assert metrics.find_label("برچسب: ناراضی.", ["راضی", "ناراضی"]) == "ناراضی"


def test_find_label_with_odd_names() -> None:
    assert metrics.find_label("Ham", ["ham", "Ham"]) == "Ham"
    assert metrics.find_label("ham", ["ham", "Ham"]) == "ham"
    assert metrics.find_label("?", ["?", "!"]) == "?"
    assert metrics.find_label("no idea", ["?", "!"]) is None
    assert metrics.find_label("1.", ["0", "1"]) == "1"


def test_exact_match_says_whether_it_is_strict() -> None:
    loose = metrics.exact_match("می\u200cرود", "میرود")
    assert loose.value == 1.0
    assert loose.details["strict"] is False
    assert metrics.exact_match("a  b", "a b").value == 1.0
    assert metrics.exact_match("A b", "a b").value == 0.0


TICKET = '{"kind": "refund", "id": 12, "tags": ["a", "b"], "open": true}'


@pytest.mark.parametrize(
    ("answer", "valid", "share", "everything"),
    [
        (TICKET, 1, 1, True),
        ('{"open":true,"tags":["a","b"],"id":12.0,"kind":"refund"}', 1, 1, True),
        ('{"kind": "refund", "id": 13, "tags": ["b", "a"], "open": true}', 1, 0.5, False),
        ('{"kind": "refund", "id": 12, "tags": ["a", "b"], "open": 1}', 1, 0.75, False),
        (TICKET[:-1] + ', "more": 1}', 1, 1, False),
        (f"```json\n{TICKET}\n```", 0, 0, False),
        (TICKET[:-1], 0, 0, False),
        ("[1]", 0, 0, False),
        ('{"id": NaN}', 0, 0, False),
        ("[" * 100_000, 0, 0, False),
    ],
)
def test_json_metrics(answer: str, valid: float, share: float, everything: bool) -> None:
    assert metrics.json_valid(answer, TICKET).value == valid
    score = metrics.json_fields(answer, TICKET)
    assert score.value == share
    assert score.details["all"] is everything


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab ی"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text("abc"), values, max_size=4))
def test_any_object_equals_itself_whatever_the_spacing(value: dict) -> None:
    score = metrics.json_fields(json.dumps(value, indent=3), json.dumps(value))
    assert score.value == 1.0
    assert score.details["all"]


@given(st.text(max_size=30))
def test_json_valid_agrees_with_the_json_module(text: str) -> None:
    try:
        expected = isinstance(json.loads(text), dict)
    except ValueError:
        expected = False
    if "NaN" not in text and "Infinity" not in text:
        assert metrics.json_valid(text, "{}").value == float(expected)


def test_number() -> None:
    assert metrics.number("so 9*2 = 18\n#### 18", "… #### 18").value == 1
    assert metrics.number("it is ۱۸٫۰", "#### 18").value == 1
    assert metrics.number("18 of 20", "#### 18").value == 0
    assert metrics.number("none", "#### 18").value == 0


ENGLISH = [
    ("the cat sat on the mat", "a cat sat on a mat"),
    ("x", "y"),
    ("", "word"),
    ("same words", "same words"),
]


@pytest.mark.parametrize(("prediction", "reference"), ENGLISH)
def test_rouge_l_equals_rouge_score_on_english(prediction: str, reference: str) -> None:
    theirs = rouge_scorer.RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"]
    assert metrics.rouge_l(prediction, reference).value == pytest.approx(theirs.fmeasure)


def test_rouge_l_sees_persian_where_the_default_tokenizer_sees_nothing() -> None:
    reference, answer = "تهران پایتخت ایران است", "پایتخت ايران تهران است"
    default = rouge_scorer.RougeScorer(["rougeL"]).score(reference, reference)["rougeL"]
    assert default.fmeasure == 0
    assert metrics.rouge_l(reference, reference).value == 1
    assert metrics.rouge_l(answer, reference).value == pytest.approx(3 / 4)  # پایتخت ایران است, of 4 and 4


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [*ENGLISH, ("تهران پایتخت است", "پایتخت ایران تهران است"), ("abcdefg", "abcxefg")],
)
def test_chrf_equals_sacrebleu(prediction: str, reference: str) -> None:
    expected = CHRF().sentence_score(prediction, [reference]).score / 100
    assert metrics.chrf(prediction, reference).value == pytest.approx(expected)


def test_fits() -> None:
    assert metrics.fits("json_fields", "{}")
    assert not metrics.fits("json_fields", "[]")
    assert metrics.fits("json_valid", "[]")
    assert not metrics.fits("number", "none")
    assert metrics.fits("chrf", "anything")
