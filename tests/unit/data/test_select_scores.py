"""Influence against retraining without each example, rounds against a loop, the rest against formulas."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.special import softmax as scipy_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from helpers.properties import examples
from tanzim.data.select import convex
from tanzim.data.select.choose import allot, choose, macro_f1, quotas
from tanzim.data.select.dynamics import watch
from tanzim.data.select.learners import STRENGTH, learn, score, unseen_shares
from tanzim.data.select.ngrams import ALPHA, MU, PLACES, PairModel, hash_words
from tanzim.data.select.rounds import ROUNDS, even_loss, irreducible, place, take_rounds

N, F, C = 60, 5, 3
PENALTY = 0.02


def _points(seed: int = 0, count: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(C, size=count)
    x = rng.normal(size=(count, F)) + np.eye(F)[labels] * 1.5
    return np.hstack([x, np.ones((count, 1))]), labels


def test_the_surrogate_is_that_of_scikit_learn() -> None:
    x, labels = _points()
    theirs = LogisticRegression(C=1 / (N * PENALTY), fit_intercept=False, tol=1e-9, max_iter=5000)
    theirs.fit(x, labels)
    ours = convex.fit(csr_matrix(x), labels, C, PENALTY, tolerance=1e-9)
    np.testing.assert_allclose(ours, theirs.coef_.T, atol=1e-4)
    np.testing.assert_allclose(convex.shares(x, ours), theirs.predict_proba(x), atol=1e-4)


def test_influence_is_what_retraining_without_each_example_shows() -> None:
    count, penalty = 200, 0.1
    x, labels = _points(count=count)
    held, held_labels = _points(seed=1, count=200)
    weights = convex.fit(x, labels, C, penalty, tolerance=1e-9)
    along = convex.direction(x, weights, penalty, held, held_labels)
    guessed = convex.influence(x, labels, weights, along)[:50] / count
    before = convex.mean_loss(held, held_labels, weights)
    shown = []
    for out in range(50):  # the objective without one: its mean is still taken over all
        rest = np.arange(count) != out
        less = convex.fit(x[rest], labels[rest], C, penalty * count / (count - 1), tolerance=1e-9)
        shown.append(convex.mean_loss(held, held_labels, less) - before)
    assert np.corrcoef(guessed, shown)[0, 1] > 0.98
    slope = np.polyfit(guessed, shown, 1)[0]
    assert 0.9 < slope < 1.2  # a first-order step falls a little short


def test_inverse_product_is_that_of_the_hessian_written_out() -> None:
    x, labels = _points()
    weights = convex.fit(x, labels, C, PENALTY)
    slope = np.random.default_rng(2).normal(size=weights.shape)
    hessian = PENALTY * np.eye(slope.size)
    for row, p in zip(x, scipy_softmax(x @ weights, axis=1), strict=True):
        hessian += np.kron(np.outer(row, row), np.diag(p) - np.outer(p, p)) / N
    exact = np.linalg.solve(hessian, slope.ravel()).reshape(slope.shape)
    for form in (x, csr_matrix(x)):
        np.testing.assert_allclose(convex.inverse_product(form, weights, slope, PENALTY), exact, rtol=1e-3)


def test_effort_is_the_norm_of_the_gradient_by_finite_differences() -> None:
    x, labels = _points(count=4)
    weights = np.random.default_rng(3).normal(size=(F + 1, C))
    norms = []
    for n in range(4):
        slope = np.zeros_like(weights)
        for entry in np.ndindex(*weights.shape):
            step = np.zeros_like(weights)
            step[entry] = 1e-5
            ends = [convex.mean_loss(x[n : n + 1], labels[n : n + 1], weights + s) for s in (step, -step)]
            slope[entry] = (ends[0] - ends[1]) / 2e-5
        norms.append(np.sqrt((slope**2).sum()))
    np.testing.assert_allclose(convex.effort(x, labels, weights), norms, rtol=1e-5)
    np.testing.assert_allclose(convex.effort(csr_matrix(x), labels, weights), norms, rtol=1e-5)
    # of vectors of length 1 it is EL2N: ‖p − y‖
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    el2n = np.linalg.norm(scipy_softmax(unit @ weights, axis=1) - np.eye(C)[labels], axis=1)
    np.testing.assert_allclose(convex.effort(unit, labels, weights), el2n, rtol=1e-9)


def test_an_example_is_scored_by_the_surrogates_that_may() -> None:
    x, labels = _points(count=90)
    folds = np.arange(90) % 3
    by_effort = learn(x, labels, folds, C, "effort")
    found = score(by_effort, x, labels, folds)
    for n in (0, 1, 2):  # by the one that did not learn from it
        other = next(one for one in by_effort if one.fold == n % 3)
        assert found[n] == pytest.approx(convex.effort(x[n : n + 1], labels[n : n + 1], other.weights_FC)[0])
    by_influence = learn(x, labels, folds, C, "influence")
    found = score(by_influence, x, labels, np.where(np.arange(90) == 4, -1, folds))
    for n, wanted in ((3, [1, 2]), (4, [0, 1, 2])):  # by those that did; one of no fold by all
        some = [one for one in by_influence if one.fold in wanted]
        each = [
            convex.influence(x[n : n + 1], labels[n : n + 1], one.weights_FC, one.direction_FC)[0]  # type: ignore[arg-type]
            for one in some
        ]
        assert found[n] == pytest.approx(np.mean(each))


def test_margins_and_forgetting_are_those_of_a_loop_written_out() -> None:
    x, labels = _points(count=40)
    epochs, rate, seed = 6, 4.0, 5
    course = watch(x, labels, C, epochs=epochs, seed=seed, rate=rate)
    rng, weights = np.random.default_rng(seed), np.zeros((F + 1, C))
    area, forgotten, was = np.zeros(40), np.zeros(40), [False] * 40
    ever = [False] * 40
    for _ in range(epochs):
        order = rng.permutation(40)
        for batch in (order[:32], order[32:]):
            step = np.zeros_like(weights)
            for n in batch:
                logits = [float(x[n] @ weights[:, c]) for c in range(C)]
                margin = logits[labels[n]] - max(logits[c] for c in range(C) if c != labels[n])
                area[n] += margin / epochs
                forgotten[n] += was[n] and margin <= 0
                was[n] = margin > 0
                ever[n] = ever[n] or was[n]
                total = sum(math.exp(one) for one in logits)
                for c in range(C):
                    step[:, c] += (math.exp(logits[c]) / total - (c == labels[n])) * x[n] / len(batch)
            weights -= rate * step
    np.testing.assert_allclose(course.area, area, rtol=1e-4, atol=1e-5)
    assert course.forgotten.tolist() == forgotten.tolist()
    assert course.learnt.tolist() == ever
    assert forgotten.sum() > 0


def test_margins_tell_planted_wrong_labels() -> None:
    x, labels = _points(count=400)
    wrong = np.random.default_rng(7).choice(400, 40, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % C
    area = watch(x, given, C, epochs=8, seed=1, rate=0.5).area
    worst = np.argsort(area)[:40]
    assert np.isin(worst, wrong).mean() > 0.6  # by chance 0.1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any), st.integers(1, 200))
@examples(80)
def test_quotas_add_up_and_stay_within_one_of_the_exact_share(sizes: list[int], count: int) -> None:
    found = quotas(np.array(sizes), count)
    kept = min(count, sum(sizes))
    assert found.sum() == kept
    assert (found <= np.array(sizes)).all()
    assert (np.abs(found - np.array(sizes) * kept / sum(sizes)) < 1).all()


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6).filter(any), st.integers(1, 600))
@examples(80)
def test_root_quotas_are_as_the_roots_but_for_classes_that_are_used_up(sizes: list[int], count: int) -> None:
    found, sizes_C = quotas(np.array(sizes), count, "root"), np.array(sizes)
    assert found.sum() == min(count, sum(sizes))
    assert (found <= sizes_C).all()
    free = (found < sizes_C) & (sizes_C > 0)
    roots = np.sqrt(sizes_C)
    if free.any():  # one number for all, but for rounding
        assert ((found[free] - 1) / roots[free]).max() <= ((found[free] + 1) / roots[free]).min()
        # none that is used up was to get less
        used = ~free & (sizes_C > 0)
        assert (roots[used] * ((found[free] + 1) / roots[free]).max() >= sizes_C[used] - 1).all()


def test_doubtful_examples_do_not_swell_their_class() -> None:
    codes = np.array([0] * 20 + [1] * 20)
    last = np.arange(40) >= 24  # of class 1 four are sound
    assert allot(codes, 12, last).tolist() == [10, 2]
    assert allot(codes, 24, last).tolist() == [20, 4]
    assert allot(codes, 30, last).tolist() == [20, 10]


def test_loss_with_even_classes_is_that_of_probabilities_divided_by_their_shares() -> None:
    rng = np.random.default_rng(5)
    shares = np.array([0.7, 0.2, 0.1])
    said, labels = rng.dirichlet(np.ones(3), size=20), rng.integers(3, size=20)
    even = said / shares
    even /= even.sum(1, keepdims=True)
    wanted = -np.log(even[np.arange(20), labels])
    np.testing.assert_allclose(irreducible(said, labels, shares), wanted, rtol=1e-9)
    np.testing.assert_allclose(even_loss(np.log(said) + 3, labels, shares), wanted, rtol=1e-9)


def test_what_is_unseen_is_told_by_those_that_did_not_see_it() -> None:
    x, labels = _points(count=90)
    folds = np.arange(90) % 3
    learners = learn(x, labels, folds, C, "reducible")
    asked = np.where(np.arange(90) == 4, -1, folds)
    found = unseen_shares(learners, x, asked)
    each = [convex.shares(x, one.weights_FC) for one in learners]
    np.testing.assert_allclose(found[3], each[0][3])
    np.testing.assert_allclose(found[4], np.mean([one[4] for one in each], axis=0))


def test_rounds_are_those_of_a_loop_with_scikit_learn() -> None:
    x, labels = _points(count=200)
    known = np.random.default_rng(6).gamma(1.0, 0.5, size=200)
    quotas_C = np.array([20, 10, 10])
    taken = take_rounds(x, labels, known, quotas_C, np.zeros(200, bool), STRENGTH)
    kept: list[int] = []
    for number in range(1, ROUNDS + 1):
        if kept:
            model = LogisticRegression(C=STRENGTH, fit_intercept=False, tol=1e-8, max_iter=5000)
            said = model.fit(x[kept], labels[kept]).predict_proba(x)
            said /= np.bincount(labels[kept], minlength=C)
            said /= said.sum(1, keepdims=True)
        else:
            said = np.full((200, C), 1 / C)
        gains = -np.log(said[np.arange(200), labels]) - known
        for label in range(C):
            wanted = max(round(quotas_C[label] * number / ROUNDS), 1)
            free = [n for n in range(200) if labels[n] == label and n not in kept]
            more = wanted - sum(labels[n] == label for n in kept)
            kept += sorted(free, key=lambda n: -gains[n])[:more]
    ours = np.flatnonzero(taken.order_N >= 1)
    assert len(ours) == 40
    assert len(set(ours.tolist()) & set(kept)) >= 39  # the solvers stop at other places
    # others would be taken in the same round
    order, gains = place(taken.rounds, x, labels, known)
    np.testing.assert_allclose(order[ours], taken.order_N[ours])
    np.testing.assert_allclose(gains[ours], taken.gains_N[ours])
    assert (order[taken.order_N < 1] < 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_rounds_pass_over_what_is_alike(seed: int) -> None:
    """Two classes of five topics, the first of them four texts in five."""
    rng = np.random.default_rng(seed)
    topics = np.where(rng.random(600) < 0.8, 0, rng.integers(1, 5, size=600))
    labels = rng.integers(2, size=600)
    x = np.eye(10)[labels * 5 + topics] + rng.normal(scale=0.1, size=(600, 10))
    x = np.hstack([x, np.ones((600, 1))])
    folds = np.arange(600) % 5
    shares = unseen_shares(learn(x, labels, folds, 2, "reducible"), x, folds)
    known = irreducible(shares, labels, np.bincount(labels) / 600)
    taken = take_rounds(x, labels, known, np.array([20, 20]), np.zeros(600, bool), STRENGTH)
    kept = np.flatnonzero(taken.order_N >= 1)
    assert len({(labels[n], topics[n]) for n in kept}) == 10
    assert (topics[kept] == 0).mean() < 0.6  # by chance 0.8


def test_the_best_of_each_class_are_chosen_and_the_doubtful_last() -> None:
    codes = np.array([0, 0, 0, 0, 1, 1])
    scores = np.array([9.0, 1, 5, 7, 0, 3])
    assert np.flatnonzero(choose(codes, scores, 3)).tolist() == [0, 3, 5]
    last = np.array([True, False, False, False, False, False])
    assert np.flatnonzero(choose(codes, scores, 3, last)).tolist() == [2, 3, 5]
    assert choose(codes, scores, 6, last).all()


def test_macro_f1_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(4, size=50), rng.integers(4, size=50)
    assert macro_f1(labels, guesses, 4) == pytest.approx(f1_score(labels, guesses, average="macro"))


def test_surprise_is_the_smoothed_pair_model_written_out() -> None:
    texts = ["گربه روی دیوار نشست", "سگ روی فرش نشست", "گربه می‌خوابد"]
    model = PairModel()
    model.add(hash_words(texts[:1]))
    model.add(hash_words(texts[1:]))
    each = [[*text.replace("\u200c", " ").split(), "."] for text in texts]  # "." stands for the end
    words = Counter(word for text in each for word in text)
    pairs = Counter(pair for text in each for pair in zip(["^", *text], text, strict=False))
    before = Counter(v for text in each for v in ["^", *text[:-1]])
    seen, types = sum(words.values()), len(words)
    assert model.seen == seen

    def nats(text: str) -> float:
        line = [*text.split(), "."]
        total = 0.0
        for v, w in zip(["^", *line], line, strict=False):
            alone = (words[w] + types / PLACES) / (seen + types)
            total -= math.log((pairs[v, w] + MU * alone) / (before[v] + MU))
        return total / len(line)

    asked = ["گربه روی فرش نشست", "ناشناس", "سگ"]
    np.testing.assert_allclose(model.nats(hash_words(asked)), [nats(one) for one in asked], rtol=1e-9)


def test_nearness_to_a_target_is_a_mean_of_logarithms_written_out() -> None:
    target, others = ["پلو با زعفران"], ["پلو و ماست", "چرخ و ترمز", "چرخ با زنجیر"]
    near, everything = PairModel(), PairModel()
    near.add(hash_words(target))
    everything.add(hash_words([*target, *others]))
    few = Counter([*target[0].split(), "."])
    many = Counter(word for text in [*target, *others] for word in [*text.split(), "."])
    types, seen = len(many), sum(many.values())

    def likelier(text: str) -> float:
        total = 0.0
        for word in [*text.split(), "."]:
            common = (many[word] + types / PLACES) / (seen + types)
            total += math.log((few[word] + ALPHA * common) / (sum(few.values()) + ALPHA) / common)
        return total / (len(text.split()) + 1)

    asked = [*others, "زعفران"]
    found = near.likelier(hash_words(asked), everything)
    np.testing.assert_allclose(found, [likelier(one) for one in asked], rtol=1e-9, atol=1e-15)
    assert found.argsort()[::-1].tolist()[0] == 3
    assert found[1] < 0 < found[3]


def test_words_of_some_texts_are_those_of_hashing_them_alone() -> None:
    rng = random.Random(2)
    texts = [" ".join(rng.choices(["الف", "ب", "پ", "ت"], k=rng.randint(0, 6))) for _ in range(20)]
    mask = np.array([rng.random() < 0.5 for _ in texts])
    picked = hash_words(texts).picked(mask)
    alone = hash_words([text for text, kept in zip(texts, mask, strict=True) if kept])
    assert picked.words.tolist() == alone.words.tolist()
    assert picked.ends.tolist() == alone.ends.tolist()
