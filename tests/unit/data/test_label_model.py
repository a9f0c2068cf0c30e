"""Weak labels: the label model against an EM written here and against planted truth; the step as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.apply import apply_step
from tanzim.data.label.config import RuleConfig, WeakLabelsConfig
from tanzim.data.label.functions import rule, votes
from tanzim.data.label.model import MISSING, fit, majority, posterior
from tanzim.data.label.weak import weak_labels


def _em(rows: Sequence[Sequence[int]], classes: int, rounds: int) -> list[list[float]]:
    """Dawid and Skene's EM in plain loops: ten pseudo-items a class for each voter, seven of them right."""
    voters = len(rows[0])
    belief = []
    for row in rows:
        heads = [sum(said == code for said in row) for code in range(classes)]
        total = sum(heads)
        belief.append([head / total if total else 1 / classes for head in heads])
    for _ in range(rounds):
        common = [1 + sum(one[code] for one in belief) for code in range(classes)]
        common = [one / sum(common) for one in common]
        table: list[list[list[float]]] = []
        for voter in range(voters):
            of_voter = []
            for code in range(classes):
                counts = [7 if said == code else 3 / (classes - 1) for said in range(classes)]
                for row, one in zip(rows, belief, strict=True):
                    if row[voter] != MISSING:
                        counts[row[voter]] += one[code]
                of_voter.append([count / sum(counts) for count in counts])
            table.append(of_voter)
        belief = []
        for row in rows:
            likely = list(common)
            for voter, said in enumerate(row):
                for code in range(classes):
                    likely[code] *= 1 if said == MISSING else table[voter][code][said]
            belief.append([one / math.fsum(likely) for one in likely])
    return belief


def _planted(
    right: Sequence[float], speaks: Sequence[float], shares: Sequence[float], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the truth, and what voters say: right so often, else another class; silent else."""
    rng = np.random.default_rng(seed)
    classes = len(shares)
    truth = rng.choice(classes, count, p=shares)
    said = np.full((count, len(right)), MISSING)
    for voter, (good, often) in enumerate(zip(right, speaks, strict=True)):
        wrong = (truth + rng.integers(1, classes, count)) % classes
        answer = np.where(rng.random(count) < good, truth, wrong)
        said[:, voter] = np.where(rng.random(count) < often, answer, MISSING)
    return truth, said


@pytest.mark.parametrize("classes", [2, 3])
def test_em_is_that_of_dawid_and_skene(classes: int) -> None:
    _, said = _planted([0.9, 0.7, 0.6, 0.8], [1, 0.8, 0.9, 0.5], [1 / classes] * classes, 120, seed=classes)
    model = fit(said, classes, rounds=25, tolerance=0)
    assert model.rounds == 25
    np.testing.assert_allclose(model(said), _em(said.tolist(), classes, 25), atol=1e-9)


def test_counted_rows_are_as_good_as_repeated_ones() -> None:
    _, said = _planted([0.9, 0.7, 0.6], [1, 0.8, 0.9], [0.3, 0.7], 400, seed=1)
    rows, counts = np.unique(said, axis=0, return_counts=True)
    one, two = fit(said, 2), fit(rows, 2, counts=counts.astype(float))
    np.testing.assert_allclose(one.said_JCV, two.said_JCV, atol=1e-6)


def test_planted_error_rates_are_found_and_majority_is_beaten() -> None:
    right = [0.95, 0.65, 0.62, 0.6, 0.65]
    _, said = _planted(right, [1] * 5, [0.4, 0.6], 8000, seed=3)
    model = fit(said, 2)
    found = [float(table.diagonal() @ model.shares_C) for table in model.said_JCV]
    np.testing.assert_allclose(found, right, atol=0.06)
    np.testing.assert_allclose(model.shares_C, [0.4, 0.6], atol=0.06)
    fresh, unseen = _planted(right, [1] * 5, [0.4, 0.6], 3000, seed=4)
    accuracy = (model(unseen).argmax(1) == fresh).mean()
    assert accuracy > (majority(unseen, 2).argmax(1) == fresh).mean() + 0.05
    assert accuracy > 0.93  # who knew all error rates would reach about 0.95


def test_posterior_is_bayes_rule() -> None:
    said = np.array([[[0.9, 0.1], [0.2, 0.8]]])
    found = posterior(np.array([[0], [1], [MISSING]]), said, np.array([0.25, 0.75]))
    np.testing.assert_allclose(found[:, 0], [0.225 / 0.375, 0.025 / 0.625, 0.25])


def test_silence_speaks_where_it_hangs_on_the_class() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(4000) < 0.3
    fires = [np.where(truth, rng.random(4000) < p, rng.random(4000) < 0.03) for p in (0.7, 0.6, 0.8)]
    said = np.stack(
        [np.where(one, 1, 2) for one in fires] + [np.where(~truth, rng.choice([0, 2], 4000), 2)], 1
    )
    model = fit(said.astype(np.int64), 2, abstains=True)
    np.testing.assert_allclose(model.said_JCV[:3, 1, 1], [0.7, 0.6, 0.8], atol=0.05)
    np.testing.assert_allclose(model.shares_C[1], 0.3, atol=0.03)


@pytest.mark.parametrize("said", [np.empty((0, 3), np.int64), np.full((2, 2), MISSING), np.array([[0, 2]])])
def test_votes_that_cannot_be_are_refused(said: np.ndarray) -> None:
    with pytest.raises(DataError):
        fit(said.astype(np.int64), 2)


def test_keywords_are_whole_words_in_both_languages() -> None:
    say = rule(RuleConfig(label="spam", keywords=["win", "کتاب‌ها", "c++"], patterns=[r"£\d+"]))
    for text in ("WIN now", "you can win.", "كتاب ها را بخر", "کتاب‌ها", "learn C++ today", "only £5"):
        assert say(text) == "spam", text
    for text in ("winter", "twin", "کتاب", "کتاب‌هایم", "c+ +", "£ five"):
        assert say(text) is None, text


def test_functions_of_python_may_say_only_known_labels() -> None:
    assert votes(["a", "b"], [lambda text: "x" if text == "a" else None], ["x", "y"]).tolist() == [[0], [2]]
    with pytest.raises(DataError, match="says 'z'"):
        votes(["a"], [lambda _: "z"], ["x", "y"])


def test_weak_labels_as_a_function() -> None:
    texts = ["خیلی خوب بود"] * 6 + ["بد بود"] * 5 + ["خوب، ولی بد"] + ["هیچ"]
    functions = [
        lambda text: "+" if "خوب" in text else None,
        lambda text: "-" if "بد" in text else None,
        lambda text: "+" if "خیلی" in text else None,
    ]
    found = weak_labels(texts, functions, ["+", "-"])
    assert found.labels[:11] == ["+"] * 6 + ["-"] * 5
    assert found.labels[12] is None
    with pytest.raises(DataError, match="shares names"):
        weak_labels(texts, functions, ["+", "-"], shares={"+": 1.0})
    with pytest.raises(DataError, match="no labelling function"):
        weak_labels(["x"], functions, ["+", "-"])


FUNCTIONS = [
    {"label": "good", "keywords": ["خوب", "great"]},
    {"label": "good", "name": "thanks", "keywords": ["ممنون", "thanks"]},
    {"label": "bad", "keywords": ["بد", "awful"]},
]


def _examples() -> list[Example]:
    texts = ["great, thanks", "awful", "خوب بود، ممنون", "بد بود", "great", "nothing", "great and awful"]
    made = [
        Example("text", Provenance("t", row), text=text, about={"language": "en"})
        for row, text in enumerate(texts * 3, 1)
    ]
    made.append(Example("labelled", Provenance("g", 1), text="great", label="good"))
    made.append(Example("labelled", Provenance("g", 2), text="awful", label="good"))
    made.append(Example("messages", Provenance("m", 1), messages=(Message("user", "great"),)))
    return made


@pytest.mark.parametrize("workers", [1, 2])
def test_step_labels_raw_texts_and_leaves_the_rest(workers: int) -> None:
    before = _examples()
    done = apply_step(before, {"type": "weak_labels", "functions": FUNCTIONS}, workers=workers)
    assert len(done.examples) == len(before)
    assert not done.removed
    labels = [example.label for example in done.examples[:7]]
    assert labels[:6] == ["good", "bad", "good", "bad", "good", ""]
    first = done.examples[0]
    assert first.kind == "labelled"
    assert first.provenance == before[0].provenance
    assert first.about["language"] == "en"
    assert first.about["weak_label"]["votes"] == {"good 1": "good", "thanks": "good"}
    assert 0.5 < first.about["weak_label"]["confidence"] <= 1
    assert done.examples[-3:] == before[-3:]
    assert done.examples[5] == before[5]


def test_step_removes_what_gets_no_label_where_asked() -> None:
    config = {"type": "weak_labels", "functions": FUNCTIONS, "abstain": "remove", "combine": "majority"}
    done = apply_step(_examples(), config, workers=1)
    reasons = [line["reason"] for line in done.removed]
    assert reasons.count("no labelling function speaks of it") == 3
    assert reasons.count("its label is not sure enough") == 3  # a tie
    assert len(done.examples) + len(done.removed) == len(_examples())


def test_step_reports_what_it_would_have_hit() -> None:
    done = apply_step(_examples(), {"type": "weak_labels", "functions": FUNCTIONS}, workers=1)
    report = json.loads(json.dumps(done.report.to_json(), default=str))
    hits = report["findings"]["on texts with a label"]
    assert hits == {"texts": 2, "spoken of": 2, "accuracy": 0.5, "majority_accuracy": 0.5}


def test_step_without_raw_text_changes_nothing() -> None:
    before = _examples()[-3:]
    assert apply_step(before, {"type": "weak_labels", "functions": FUNCTIONS}, workers=1).examples == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"functions": FUNCTIONS[:2]}, "two labels"),
        ({"functions": [*FUNCTIONS, {"label": "bad"}]}, "keywords or patterns"),
        ({"functions": [*FUNCTIONS, {"label": "bad", "patterns": ["("]}]}, "no regular expression"),
        ({"functions": [*FUNCTIONS, {"label": "bad", "keywords": ["!"]}]}, "letter or digit"),
        ({"functions": [*FUNCTIONS, FUNCTIONS[1]]}, "same name"),
        ({"shares": {"good": 1.0}}, "shares names"),
        ({"shares": {"good": 0.9, "bad": 0.9}}, "together 1"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        apply_step([], {"type": "weak_labels", "functions": FUNCTIONS, **change})
    with pytest.raises(ValidationError):
        WeakLabelsConfig.model_validate({"functions": FUNCTIONS, **change})


def test_known_shares_are_kept() -> None:
    texts = ["great thanks"] * 5 + ["awful"] * 5
    say = [lambda text: "good" if "great" in text else None, lambda text: "bad" if "awful" in text else None]
    found = weak_labels(texts, say, ["bad", "good"], shares={"good": 0.8, "bad": 0.2})
    np.testing.assert_allclose(found.model.shares_C, [0.2, 0.8])
