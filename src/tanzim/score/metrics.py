"""Scores of one answer against its reference, each from 0 to 1.

``(prediction, reference) → Score``. A reference a metric does not fit (no JSON object, no number)
is the caller's to leave out: `fits` says so.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NoReturn

from tanzim.core.optional import need
from tanzim.core.records import Json, Score
from tanzim.score.text import final_number, normalise, visible, words

_QUOTES = "\"'`*.,:;!?()[]{}«»“”‘’،؛؟。 "


def exact_match(prediction: str, reference: str) -> Score:
    """Compare whole answers as `normalise` sees them; ``details.strict``: equal to the last code point."""
    answer = visible(prediction)
    return Score(float(normalise(answer) == normalise(reference)), {"strict": answer == reference.strip()})


def find_label(prediction: str, labels: Sequence[str]) -> str | None:
    """Read a label out of a generated answer.

    The whole answer (without quotes and final punctuation), else its first line, else the only label
    that stands in it as a word; case does not matter. None if no label or several can be read: an
    answer that names two labels has not chosen.
    """
    names = {_bare(label): label for label in labels}
    answer = visible(prediction)
    lines = answer.splitlines() or [""]
    for label in labels:  # labels that differ in case alone
        if normalise(label) == normalise(answer):
            return label
    for text in (answer, lines[0]):
        if _bare(text) in names:
            return names[_bare(text)]
    rest, found = normalise(answer).casefold(), set()
    for name in sorted(names, key=len, reverse=True):  # "not spam" before "spam"
        rest, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", "\n", rest)
        if count:
            found.add(names[name])
    return found.pop() if len(found) == 1 else None


def _bare(text: str) -> str:
    plain = normalise(text).casefold()
    return plain.strip(_QUOTES) or plain


def accuracy(prediction: str, reference: str, labels: Sequence[str]) -> Score:
    """Compare the label read out of the answer with the right one; ``details.label`` is what was read."""
    label = find_label(prediction, labels)
    return Score(float(label is not None and normalise(label) == normalise(reference)), {"label": label})


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse ``text`` as one strict JSON value (RFC 8259: no NaN, nothing around it).

    Raises:
        ValueError: it is not.

    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=Decimal)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_object(text: str) -> Json | None:
    """Return ``text`` as a JSON object, or None if it is not exactly one."""
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_valid(prediction: str, reference: str) -> Score:
    """Check that the answer is one JSON value of the reference's kind and nothing else (no ``` fence)."""
    try:
        value = parse_json(visible(prediction))
    except ValueError as error:
        return Score(0.0, {"error": str(error)})
    return Score(float(type(value) is type(parse_json(reference))))


def json_fields(prediction: str, reference: str) -> Score:
    """Return the share of the reference's fields that the answer has right.

    ``details.fields``: right or wrong, by name; ``details.all``: every field right and none besides.
    Strings compare as in `exact_match`, numbers by value, lists and objects by their parts.
    """
    wanted, given = parse_object(reference) or {}, parse_object(visible(prediction))
    fields = {
        name: given is not None and name in given and _same(given[name], wanted[name]) for name in wanted
    }
    right = given is not None and all(fields.values()) and given.keys() == wanted.keys()
    share = sum(fields.values()) / len(fields) if fields else float(right)
    return Score(share, {"fields": fields, "all": right})


def _same(left: Any, right: Any) -> bool:  # noqa: ANN401 - any JSON values
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        return normalise(left) == normalise(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(left == right)


def number(prediction: str, reference: str) -> Score:
    """Compare the final numbers (GSM8K, arXiv:2110.14168: after ``####``, else the last one), by value."""
    answer, wanted = final_number(visible(prediction)), final_number(reference)
    found = None if answer is None else str(answer)
    return Score(float(answer is not None and answer == wanted), {"number": found})


class _Words:
    """The tokenizer that rouge-score asks for; its own keeps a–z and 0–9 only, so no Persian at all."""

    def tokenize(self, text: str) -> list[str]:
        """Split ``text`` into words of any script."""
        return words(text)


@functools.cache
def _rouge() -> Any:  # noqa: ANN401 - untyped package
    return need("rouge_score.rouge_scorer", "eval").RougeScorer(["rougeL"], tokenizer=_Words())


@functools.cache
def _chrf() -> Any:  # noqa: ANN401 - untyped package
    return need("sacrebleu.metrics", "eval").CHRF()


def rouge_l(prediction: str, reference: str) -> Score:
    """Return ROUGE-L, the F1 of the longest common subsequence of words (Lin 2004).

    Raises:
        MissingExtra: the package rouge-score is not installed.

    """
    result = _rouge().score(reference, visible(prediction))["rougeL"]
    details = {"precision": float(result.precision), "recall": float(result.recall)}
    return Score(float(result.fmeasure), details)


def chrf(prediction: str, reference: str) -> Score:
    """Return sentence chrF2 of sacreBLEU, divided by 100 (Popović 2015): character n-grams to order 6.

    Raises:
        MissingExtra: the package sacrebleu is not installed.

    """
    result = _chrf().sentence_score(normalise(visible(prediction)), [normalise(reference)])
    return Score(float(result.score) / 100)


def fits(metric: str, reference: str) -> bool:
    """Say whether ``metric`` can judge answers to this reference."""
    if metric == "json_valid":
        try:
            parse_json(reference)
        except ValueError:
            return False
        return True
    if metric == "json_fields":
        return parse_object(reference) is not None
    return metric != "number" or final_number(reference) is not None
