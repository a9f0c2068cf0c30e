"""Balancing, held against imbalanced-learn (sampling, SMOTE), cleanlab (wrong labels) and scikit-learn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from hypothesis import given
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score
from sklearn.neighbors import NearestNeighbors

from helpers.properties import examples
from tanzim.core.errors import ConfigError, DataError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data.balance.baseline import MOST_COMMON, baselines, measured
from tanzim.data.balance.classes import NONE
from tanzim.data.balance.counts import lowered, raised
from tanzim.data.balance.labelled import draw_folds
from tanzim.data.balance.noise import confident_joint, find_wrong, thresholds, whole
from tanzim.data.balance.points import Draws, draw, interpolate, nearest_neighbours, smote
from tanzim.data.balance.sample import repeats
from tanzim.data.chain import Done, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.shards import Dataset, write_shards

Counts = st.lists(st.integers(1, 300), min_size=2, max_size=6)


def _run(
    folder: Path, examples: Sequence[Example], powers: Powers | None = None, **step: Any
) -> tuple[list[Example], Done]:
    """Run one step over three shards."""
    size = -(-len(examples) // 3)
    parts = [
        write_shards(folder / f"in-{start}", examples[start : start + size])
        for start in range(0, len(examples), size)
    ]
    shards = [shard for part in parts for shard in part.shards]
    configs = DataConfig.model_validate({"steps": [step]}).steps
    (done,) = run_steps(
        configs, Dataset(tuple(shards)), folder / "cache", seed=3, powers=powers, executor=Local(1)
    )
    return list(done.dataset), done


def _labelled(texts: Sequence[tuple[str, str]]) -> list[Example]:
    return [Example("labelled", Provenance("نمونه", n), text=t, label=y) for n, (t, y) in enumerate(texts, 1)]


def _uneven() -> list[Example]:
    rng = random.Random(1)
    rows = [
        (f"متن {n} {rng.random():.6f}", label)
        for label, k in (("آ", 90), ("ب", 31), ("پ", 7))
        for n in range(k)
    ]
    rng.shuffle(rows)
    return _labelled(rows)


# --- over- and under-sampling


@given(Counts, st.sampled_from([1.0, 0.5, 0.25]))
@examples(60)
def test_sampled_counts_are_those_of_imbalanced_learn(sizes: list[int], ratio: float) -> None:
    counts = np.array(sizes)
    labels = np.repeat(np.arange(len(counts)), counts)
    more, less = raised(counts, ratio), lowered(counts, ratio)
    if ratio == 1:
        over = RandomOverSampler(random_state=0).fit_resample(labels[:, None], labels)[1]
        under = RandomUnderSampler(random_state=0).fit_resample(labels[:, None], labels)[1]
        assert np.bincount(over).tolist() == more.tolist()
        assert np.bincount(under).tolist() == less.tolist()
    for wanted in (more, less):
        times = repeats(labels, wanted, seed=5)
        assert np.bincount(labels, weights=times).tolist() == wanted.tolist()
        for code in range(len(counts)):  # evenly: none of a class twice more than another
            assert np.ptp(times[labels == code]) <= 1
    assert (more >= counts).all()
    assert more.min() >= ratio * more.max()
    assert (less <= counts).all()
    assert less.min() >= ratio * less.max() or less.min() == counts.min()


def test_two_classes_by_a_share_as_imbalanced_learn() -> None:
    labels = np.repeat([0, 1], [200, 30])
    over = RandomOverSampler(sampling_strategy=0.5, random_state=0).fit_resample(labels[:, None], labels)[1]
    under = RandomUnderSampler(sampling_strategy=0.5, random_state=0).fit_resample(labels[:, None], labels)[1]
    assert raised(np.array([200, 30]), 0.5).tolist() == np.bincount(over).tolist()
    assert lowered(np.array([200, 30]), 0.5).tolist() == np.bincount(under).tolist()


def test_oversample_repeats_rare_classes_and_leaves_the_rest(tmp_path: Path) -> None:
    talk = Example(
        "messages", Provenance("t", 1), messages=(Message("user", "سلام"), Message("assistant", "درود"))
    )
    tagged = Example("tagged", Provenance("t", 2), text="تهران است", words=("تهران", "است"), tags=("B", "O"))
    examples = [*_uneven(), talk, tagged]
    found, done = _run(tmp_path, examples, type="oversample", max_copies=8)
    assert Counter(e.label for e in found if e.kind == "labelled") == {"آ": 90, "ب": 90, "پ": 56}
    assert done.report.findings["after"] == {"آ": 90, "ب": 90, "پ": 56}
    assert done.report.findings["held back by max_copies"] == ["پ"]
    assert [e for e in found if not e.provenance.derived] == examples
    assert len({e.provenance for e in found}) == len(found)
    texts = Counter(e.text for e in found if e.label == "ب")
    assert set(texts.values()) == {2, 3}
    assert {e.text for e in found} == {e.text for e in examples}
    assert done.report.counts == {"copies of ب": 59, "copies of پ": 49}


def test_undersample_cuts_and_gives_the_reason(tmp_path: Path) -> None:
    found, done = _run(tmp_path, _uneven(), type="undersample", ratio=0.5)
    assert Counter(e.label for e in found) == {"آ": 14, "ب": 14, "پ": 7}
    assert done.report.removed == {"one of a class that is too common": 128 - 35}
    again, _ = _run(tmp_path, _uneven(), type="undersample", ratio=0.5)
    assert again == found


def test_classes_may_be_what_is_known_about_examples(tmp_path: Path) -> None:
    examples = [
        Example("text", Provenance("x", n), text=f"text {n}", about={"language": "fa" if n % 4 else "en"})
        for n in range(40)
    ]
    found, _ = _run(tmp_path, examples, type="oversample", by="about.language")
    assert Counter(e.about["language"] for e in found) == {"fa": 30, "en": 30}
    with pytest.raises(DataError, match="no example with a class among the 40"):
        _run(tmp_path, examples, type="oversample")


# --- SMOTE


@pytest.mark.parametrize("seed", [0, 7])
def test_points_are_those_of_imbalanced_learn_for_its_draws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(60, 6))
    labels = np.repeat([0, 1], [45, 15])
    made, _ = SMOTE(k_neighbors=5, random_state=seed).fit_resample(vectors, labels)
    rare = vectors[labels == 1]
    state = np.random.RandomState(seed)  # as imbalanced-learn draws
    picks = state.randint(low=0, high=15 * 5, size=30)
    draws = Draws(picks // 5, picks % 5, state.uniform(size=30))
    ours = interpolate(rare, nearest_neighbours(rare, 5), draws)
    np.testing.assert_allclose(ours, made[60:], atol=1e-9)


def test_neighbours_are_those_of_scikit_learn_over_several_blocks() -> None:
    vectors = np.random.default_rng(2).normal(size=(2100, 4))
    theirs = NearestNeighbors(n_neighbors=4).fit(vectors).kneighbors(vectors, return_distance=False)[:, 1:]
    assert nearest_neighbours(vectors, 3).tolist() == theirs.tolist()
    with pytest.raises(ValueError, match="2 vectors have no 2 neighbours"):
        nearest_neighbours(vectors[:2], 2)


def test_points_lie_between_two_of_their_class_and_even_the_counts() -> None:
    rng = np.random.default_rng(4)
    vectors, codes = rng.normal(size=(80, 3)), np.repeat([0, 1, 2], [60, 19, 1])
    points, classes = smote(vectors, codes, raised(np.bincount(codes), 1.0), 1)
    assert np.bincount(classes, minlength=3).tolist() == [0, 41, 0]  # one alone has no neighbour
    rare = vectors[codes == 1]
    for point in points:  # |a − p| + |p − b| = |a − b| for some pair
        apart = np.linalg.norm(rare - point, axis=1)
        between = np.abs(apart[:, None] + apart - np.linalg.norm(rare[:, None] - rare, axis=2))
        assert between[~np.eye(19, dtype=bool)].min() < 1e-9
    draws = draw(41, 19, 5, 0)
    assert np.ptp(np.bincount(draws.parents, minlength=19)) <= 1


def _embed(texts: Sequence[str]) -> Any:
    """Put a text that names an angle on the circle."""
    angles = [0.0 if text == "-" else float(text.split()[-1]) for text in texts]
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def _circle() -> list[Example]:
    return _labelled(
        [(f"زاویه {n / 20:.3f}", "common") for n in range(40)]
        + [(f"کم {n / 4:.3f}", "rare") for n in range(8)]
    )


def test_smote_takes_the_nearest_text_of_the_class(tmp_path: Path) -> None:
    opened: list[str] = []

    def embed(name: str) -> Any:
        opened.append(name)
        return _embed

    found, done = _run(
        tmp_path, _circle(), Powers(embed=embed), type="smote", embedding="circle", max_copies=9
    )
    assert Counter(e.label for e in found) == {"common": 40, "rare": 40}
    assert done.report.findings == {"before": {"common": 40, "rare": 8}, "after": {"common": 40, "rare": 40}}
    made = [e for e in found if e.provenance.derived]
    assert {e.text for e in made} <= {e.text for e in _circle() if e.label == "rare"}
    assert all(e.provenance.derived.startswith("smote ") for e in made)
    assert set(opened) == {"circle"}


def test_smote_takes_what_is_written_between_and_leaves_the_rest(tmp_path: Path) -> None:
    asked: list[str] = []

    def complete(name: str) -> Any:
        def answer(conversations: Sequence[Sequence[Message]]) -> list[str]:
            answers = []
            for number, (turn,) in enumerate(conversations):
                asked.append(turn.content)
                low, high = sorted(
                    float(line.split()[-1]) for line in turn.content.splitlines() if "کم" in line
                )
                middle = f"نو {(low + high) / 2 + number / 1e6:.6f}"
                answers.append([middle, "نو 3.1", "", turn.content.splitlines()[2][3:]][number % 4])
            return answers

        return answer

    powers = Powers(embed=lambda name: _embed, complete=complete)
    step = {
        "type": "smote",
        "embedding": "circle",
        "text": "write",
        "writer": "w",
        "neighbours": 1,
        "max_copies": 9,
    }
    found, done = _run(tmp_path, _circle(), powers, **step)
    findings = done.report.findings
    assert len(asked) == 32
    assert findings["said nothing"] == 8
    assert findings["said what is there already"] == 8
    assert findings["not between its parents"] + findings["after"]["rare"] - 8 == 16
    assert findings["not between its parents"] >= 8
    written = [e.text for e in found if e.provenance.derived]
    assert written
    assert all(text.startswith("نو ") for text in written)
    assert {one["why"] for one in findings["not taken"]} <= {*findings}
    with pytest.raises(ConfigError, match="needs a language model"):
        _run(tmp_path, _circle(), powers, type="smote", embedding="circle", text="write")


def test_smote_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs an embedding model"):
        _run(tmp_path, _circle(), type="smote", embedding="circle")


# --- wrong labels


def _noisy(seed: int, classes: int = 4) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, 800)
    labels = np.where(rng.random(800) < 0.15, rng.integers(0, classes, 800), true)
    logits = rng.normal(size=(800, classes))
    logits[np.arange(800), true] += 2.5
    shares = np.exp(logits)
    return true, labels, shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(6))
def test_confident_joint_is_that_of_cleanlab(seed: int) -> None:
    _, labels, shares = _noisy(seed)
    theirs = compute_confident_joint(labels, shares, calibrate=False)
    scaled = theirs / theirs.sum(1, keepdims=True) * np.bincount(labels)[:, None]
    np.testing.assert_allclose(confident_joint(labels, shares), scaled)
    own = [shares[labels == k, k].mean() for k in range(4)]
    np.testing.assert_allclose(thresholds(labels, shares), own)


@pytest.mark.parametrize("seed", range(6))
def test_wrong_labels_are_those_of_cleanlab(seed: int) -> None:
    """But for the one at the edge that whole numbers are rounded to."""
    true, labels, shares = _noisy(seed)
    ours = find_wrong(labels, shares).wrong
    theirs = find_label_issues(labels, shares, n_jobs=1)
    assert (ours != theirs).sum() <= 3
    assert (ours & theirs).sum() > 30
    assert (labels != true)[ours].mean() > 3 * (labels != true).mean()


def test_a_small_class_is_left_alone() -> None:
    _, labels, shares = _noisy(1)
    few = int((labels == 0).sum())
    free = find_wrong(labels, shares).wrong
    held = find_wrong(labels, shares, min_per_class=few - 2).wrong
    assert free[labels == 0].sum() > 2
    assert held[labels == 0].sum() == 2
    assert not find_wrong(labels, shares, min_per_class=few).wrong[labels == 0].any()


@given(st.lists(st.floats(0, 50), min_size=1, max_size=8))
@examples(60)
def test_rounding_keeps_the_sum(row: list[float]) -> None:
    values = np.array(row)
    values *= round(values.sum()) / max(values.sum(), 1e-9)
    if values.sum() > 0:
        assert whole(values).sum() == round(values.sum())
        assert np.abs(whole(values) - values).max() < 1


def test_folds_are_even_and_keep_equal_texts_together() -> None:
    rng = np.random.default_rng(1)
    codes = rng.choice([0, 1, 2, NONE], 400)
    digests = rng.integers(0, 250, 400).astype(np.uint64)
    folds = draw_folds(codes, digests, 5, rng)
    assert all(len(np.unique(folds[digests == one])) == 1 for one in np.unique(digests))
    single = draw_folds(codes, np.arange(400, dtype=np.uint64), 5, rng)
    for code in range(3):
        assert np.ptp(np.bincount(single[codes == code], minlength=5)) <= 1


def _reviews(count: int, flipped: int) -> tuple[list[Example], set[int]]:
    rng = random.Random(9)
    words = {
        "خوب": ["عالی", "خوش‌مزه", "تازه", "سریع", "lovely"],
        "بد": ["سرد", "بی‌مزه", "کهنه", "دیر", "awful"],
    }
    rest = ["غذا", "پیک", "بسته‌بندی", "بود", "رسید", "خیلی", "امروز"]
    rows = []
    wrong = set(rng.sample(range(1, count + 1), flipped))
    for number in range(1, count + 1):
        label = rng.choice(["خوب", "بد"])
        said = [*rng.choices(words[label], k=2), *rng.choices(rest, k=4), str(number)]
        rng.shuffle(said)
        other = "بد" if label == "خوب" else "خوب"
        rows.append((" ".join(said), other if number in wrong else label))
    return _labelled(rows), wrong


def test_flipped_labels_are_found_in_persian(tmp_path: Path) -> None:
    examples, wrong = _reviews(300, 30)
    found, done = _run(tmp_path, examples, type="label_noise")
    removed = {e.provenance.row for e in examples} - {e.provenance.row for e in found}
    assert len(removed & wrong) >= 27
    assert len(removed - wrong) <= 3
    assert done.report.findings["suspected"] == len(removed)
    assert done.report.findings["surrogate"]["macro_f1"] > 0.8
    marked, done = _run(tmp_path, examples, type="label_noise", action="mark")
    assert {e.provenance.row for e in marked if "label_noise" in e.about} == removed
    assert all(e.about["label_noise"]["likelier"] != e.label for e in marked if "label_noise" in e.about)
    assert done.report.counts == {"probably wrong labels": len(removed)}
    assert done.report.removed == {}


def test_flipped_labels_are_found_by_embeddings(tmp_path: Path) -> None:
    examples, wrong = _reviews(200, 20)

    def embed(texts: Sequence[str]) -> Any:
        good = np.array(
            [sum(text.count(word) for word in ("عالی", "خوش", "تازه", "سریع", "lovely")) for text in texts]
        )
        return np.stack([good, 2.0 - good], axis=1).astype(np.float32)

    opened: list[str] = []

    def open_model(name: str) -> Any:
        opened.append(name)
        return embed

    found, _ = _run(tmp_path, examples, Powers(embed=open_model), type="label_noise", embedding="words")
    assert {e.provenance.row for e in examples} - {e.provenance.row for e in found} == wrong
    assert opened == ["words"]  # once, for three shards


def test_texts_without_a_label_say_nothing_about_the_last_one_with_a_label(tmp_path: Path) -> None:
    examples, _ = _reviews(150, 15)
    bare = [Example("text", Provenance("ساده", n), text=f"غذا {n}") for n in range(1, 31)]
    alone, _ = _run(tmp_path / "alone", examples, type="label_noise", action="mark")
    found = [one for one in alone if "label_noise" in one.about]
    assert len(found) > 6
    for one in found[:6]:
        others = [other for other in examples if other.provenance != one.provenance]
        rows = [*others, replace(one, about={}), *bare]
        mixed, _ = _run(tmp_path / str(one.provenance.row), rows, type="label_noise", action="mark")
        assert mixed[150:] == bare
        assert mixed[149].about["label_noise"]["margin"] > one.about["label_noise"]["margin"] / 2


def test_a_surrogate_that_knows_nothing_judges_nothing(tmp_path: Path) -> None:
    rng = random.Random(1)
    examples = _labelled([(f"x{rng.random()}", rng.choice("aaab")) for _ in range(120)])
    found, done = _run(tmp_path, examples, type="label_noise")
    assert found == examples
    assert "knows no more" in done.report.findings["not judged"]


def test_a_surrogate_learns_from_a_part_of_many(tmp_path: Path) -> None:
    examples, wrong = _reviews(400, 30)
    found, _ = _run(tmp_path, examples, type="label_noise", surrogate_rows=150)
    removed = {e.provenance.row for e in examples} - {e.provenance.row for e in found}
    assert len(removed & wrong) >= 20  # by chance three
    assert len(removed - wrong) <= 8


# --- baselines and measures


def test_small_models_learn_and_the_measures_are_those_of_scikit_learn() -> None:
    examples, _ = _reviews(400, 0)
    learnt, held = examples[:300], examples[300:]
    guesses = baselines([e.text for e in learnt], [e.label for e in learnt], [e.text for e in held], seed=1)
    right = [e.label for e in held]
    found = measured(guesses, right)
    assert list(found) == [MOST_COMMON, "logistic regression", "bagging", "boosting"]
    for name, said in guesses.items():
        guess = said.labels
        assert said.names == ["بد", "خوب"]
        # the area by hand: precision wherever another true one is reached, equal scores together
        areas = []
        for code, label in enumerate(said.names):
            scores, true = said.shares_NC[:, code], np.array([one == label for one in right])
            areas.append(np.mean([true[scores >= score].mean() for score in scores[true]]))
        assert found[name] == {
            "accuracy": round(float(np.mean([a == b for a, b in zip(guess, right, strict=True)])), 4),
            "macro_f1": round(float(f1_score(right, guess, average="macro", zero_division=0)), 4),
            "balanced_accuracy": round(float(balanced_accuracy_score(right, guess)), 4),
            "kappa": round(float(cohen_kappa_score(right, guess)), 4),
            "average_precision": pytest.approx(np.mean(areas), abs=1e-4),
        }
    assert found[MOST_COMMON]["average_precision"] == pytest.approx(0.5, abs=1e-4)
    assert found[MOST_COMMON]["kappa"] == 0
    assert min(found[name]["macro_f1"] for name in list(found)[1:]) > 0.8
    with pytest.raises(DataError, match="there is one class"):
        baselines(["a"], ["x"], ["b"], seed=1)
