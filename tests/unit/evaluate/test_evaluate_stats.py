"""Bootstrap intervals against scipy, label measures against scikit-learn, and closed forms."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from tanzim.evaluate.judge import label_table
from tanzim.evaluate.stats import (
    Estimate,
    average_precision,
    difference,
    interval,
    label_rows,
    label_scores,
    macro_f1,
    mean,
    resample,
    verdict,
)

LABELS = ["a", "b", "c"]


def rows(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def test_interval_of_a_mean_equals_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=80)
    ours = interval(rows(values), mean, resamples=20_000, seed=1)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_paired_difference_equals_scipy_and_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(size=100)
    tuned = base + rng.normal(0.2, 0.3, size=100)
    ours = difference(rows(tuned), rows(base), mean, resamples=20_000, seed=1)
    theirs = scipy_stats.bootstrap(
        (tuned, base),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    alone = interval(rows(tuned), mean, resamples=2000, seed=1)
    assert ours.high - ours.low < (alone.high - alone.low) / 2


def test_interval_of_macro_f1_equals_scipy() -> None:
    rng = np.random.default_rng(5)
    true = rng.choice(3, size=150, p=[0.6, 0.3, 0.1])
    guess = np.where(rng.random(150) < 0.7, true, rng.choice(3, size=150))
    table = label_rows([LABELS[i] for i in guess], [LABELS[i] for i in true], LABELS)
    ours = interval(table, macro_f1, resamples=4000, seed=1)
    theirs = scipy_stats.bootstrap(
        (true, guess),
        lambda t, g: f1_score(t, g, labels=np.unique(t), average="macro", zero_division=0),
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(6),
    ).confidence_interval
    assert ours.value == pytest.approx(f1_score(true, guess, average="macro"))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn_with_unread_answers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = [LABELS[i] for i in rng.integers(0, 3, size=30)]
    guess = [[*LABELS, None][i] for i in rng.integers(0, 4, size=30)]
    ours = macro_f1(label_rows(guess, true, LABELS).sum(0, keepdims=True))[0]
    spelled = [g or "unread" for g in guess]
    options = {"labels": sorted(set(true)), "zero_division": 0}
    assert ours == pytest.approx(f1_score(true, spelled, average="macro", **options))
    theirs = precision_recall_fscore_support(true, spelled, labels=LABELS, zero_division=0)
    for label, *expected in zip(LABELS, *theirs, strict=True):
        score = label_table(guess, true, LABELS)[label]
        assert [score.precision, score.recall, score.f1, score.support] == pytest.approx(expected)


def test_a_label_nobody_has_is_left_out() -> None:
    table = label_rows(["a", "c"], ["a", "a"], LABELS)
    assert macro_f1(table.sum(0, keepdims=True))[0] == pytest.approx(2 / 3)  # F1 of a alone: P 1, R 1/2


def test_resamples_are_repeatable_and_draw_n_of_n() -> None:
    drawn = resample(7, 50, seed=3)
    assert (drawn.sum(1) == 7).all()
    assert (drawn == resample(7, 50, seed=3)).all()
    assert (drawn != resample(7, 50, seed=4)).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Estimate(0.1, 0.01, 0.2, 50), "better"),
        (Estimate(0.1, -0.01, 0.2, 50), "no measurable change"),
        (Estimate(-0.1, -0.2, -0.01, 50), "worse"),
        (Estimate(0.0, 0.0, 0.0, 50), "no measurable change"),
        (Estimate(1.0, 1.0, 1.0, 3), "too few items to say"),
    ],
)
def test_verdict(change: Estimate, words: str) -> None:
    assert verdict(change) == words


@pytest.mark.parametrize("places", [1, 6])
def test_average_precision_equals_scikit_learn_on_every_resample(places: int) -> None:
    """With one decimal many scores are equal; a label that no reference has is left out."""
    rng = np.random.default_rng(places)
    true = rng.choice(3, size=60, p=[0.7, 0.2, 0.1])
    shares = rng.dirichlet(np.ones(4), size=60)
    shares[np.arange(60), true] += 0.3
    shares = np.round(shares, places)
    table = label_scores(shares, [LABELS[i] for i in true], [*LABELS, "nobody's"])
    counts = resample(60, 70, seed=4)
    found = average_precision.of(table, counts)
    for weights, ours in zip(counts, found, strict=True):
        labels = [label for label in range(3) if weights[true == label].sum()]
        theirs = [
            average_precision_score(true == label, shares[:, label], sample_weight=weights)
            for label in labels
        ]
        assert ours == pytest.approx(np.mean(theirs))


def test_average_precision_has_an_interval_and_beats_looking_at_nothing() -> None:
    rng = np.random.default_rng(8)
    true = rng.random(200) < 0.1
    score = true + rng.normal(size=200)
    right = [LABELS[int(one)] for one in true]
    told = label_scores(np.stack([-score, score], 1), right, LABELS[:2])
    blind = label_scores(np.zeros((200, 2)), right, LABELS[:2])
    ours = interval(told, average_precision, resamples=300, seed=1)
    assert ours.low < ours.value < ours.high
    assert interval(blind, average_precision, resamples=300, seed=1).value == pytest.approx(0.5)
    change = difference(told, blind, average_precision, resamples=300, seed=1)
    assert change.value == pytest.approx(ours.value - 0.5)
    assert change.low > 0
