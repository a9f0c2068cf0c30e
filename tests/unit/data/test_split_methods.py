"""Ways to divide, held against scikit-learn, closed forms, and brute force over all pairs."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import (
    GroupShuffleSplit,
    LeaveOneOut,
    StratifiedKFold,
    StratifiedShuffleSplit,
)

from helpers.properties import examples
from tanzim.core.errors import ConfigError, DataError
from tanzim.data.config import DataConfig
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.split.kin import components
from tanzim.data.split.methods import Units, fitting, folds, latest, leave_one_out, quotas, stratified
from tanzim.data.split.times import seconds
from tanzim.data.store import ExampleStore


def _alone(count: int) -> Units:
    return Units.by(np.arange(count, dtype=np.uint64))


def _text(rng: random.Random, words: int = 25) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 8))) for _ in range(words))


def _grams(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)}


def _prepare(
    folder: Path, rows: list[dict[str, Any]], **split: Any
) -> tuple[DataReport, dict[str, list[Any]]]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    columns = {name: name for name in ("group", "time", "licence") if any(name in row for row in rows)}
    config = DataConfig.model_validate({"path": str(path), "columns": columns, "split": split, "workers": 1})
    report = prepare(config, folder / "out", seed=7)
    names = ("train", "validation", "test")
    return report, {name: list(ExampleStore(folder / "out" / f"{name}.arrow")) for name in names}


# --- stratified


@pytest.mark.parametrize("seed", range(5))
def test_stratified_counts_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, 997, p=[0.7, 0.2, 0.07, 0.03])
    sets = stratified(_alone(len(labels)), labels, (100,), seed)
    split = StratifiedShuffleSplit(1, test_size=100, random_state=seed)
    _, test = next(split.split(np.zeros((len(labels), 1)), labels))
    ours, theirs = (np.bincount(labels[rows], minlength=4) for rows in (np.flatnonzero(sets == 1), test))
    assert ours.sum() == theirs.sum() == 100
    assert np.abs(ours - theirs).max() <= 1  # both round; scikit-learn gives what is over by chance
    assert (np.abs(ours - np.bincount(labels) * 100 / 997) < 1).all()  # the closed form


@given(st.lists(st.integers(0, 500), min_size=1, max_size=12), st.floats(0, 1))
@examples(200)
def test_quotas_are_nearly_in_proportion(counts: list[int], share: float) -> None:
    total = np.array(counts)
    wanted = round(share * int(total.sum()))
    found = quotas(total, wanted)
    if total.sum():
        assert found.sum() == wanted
        assert (np.abs(found - total * wanted / total.sum()) < 1).all()
        assert (found <= total).all()


def test_units_are_drawn_whole_and_labels_stay_in_proportion() -> None:
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 700, 2000).astype(np.uint64)  # units of about three, of any label
    labels = rng.choice(3, 2000, p=[0.6, 0.3, 0.1])
    sets = stratified(Units.by(keys), labels, (400, 200), 1)
    for key in np.unique(keys):
        assert len(np.unique(sets[keys == key])) == 1
    assert abs((sets == 1).sum() - 400) <= 9
    assert abs((sets == 2).sum() - 200) <= 9
    for number in (1, 2):
        shares = np.bincount(labels[sets == number], minlength=3) / (sets == number).sum()
        assert np.abs(shares - [0.6, 0.3, 0.1]).max() < 0.06


def test_units_that_do_not_fit_are_passed_over() -> None:
    sizes = np.array([5, 4, 9, 1, 2])
    assert fitting(np.array([0, 1, 2, 3, 4]), sizes, 12).tolist() == [0, 1, 3, 4]
    assert fitting(np.array([2, 0]), sizes, 4).tolist() == []


# --- folds


@pytest.mark.parametrize("count", [2, 5, 7])
def test_folds_part_the_data_as_stratified_k_fold_does(count: int) -> None:
    rng = np.random.default_rng(count)
    labels = rng.choice(3, 503, p=[0.8, 0.15, 0.05])
    dealt = folds(_alone(503), labels, count, 1)
    theirs = [test for _, test in StratifiedKFold(count, shuffle=True).split(labels[:, None], labels)]
    assert sorted(Counter(dealt.tolist()).values()) == sorted(map(len, theirs))
    for label in range(3):
        ours = sorted(((dealt == fold) & (labels == label)).sum() for fold in range(1, count + 1))
        assert ours == sorted((labels[test] == label).sum() for test in theirs)


def test_folds_keep_units_whole_and_even() -> None:
    rng = np.random.default_rng(5)
    keys = rng.integers(0, 400, 1200).astype(np.uint64)
    dealt = folds(Units.by(keys), np.zeros(1200, np.int64), 5, 1)
    assert all(len(np.unique(dealt[keys == key])) == 1 for key in np.unique(keys))
    assert np.bincount(dealt, minlength=6)[1:].min() > 220


def test_leave_one_out_holds_each_out_once_as_scikit_learn_does() -> None:
    units = _alone(9)
    theirs = [test.tolist() for _, test in LeaveOneOut().split(np.zeros((9, 1)))]
    assert [np.flatnonzero(leave_one_out(units, fold)).tolist() for fold in range(1, 10)] == theirs
    with pytest.raises(ValueError, match="there is no fold 10: there are 9"):
        leave_one_out(units, 10)


# --- time


def test_the_latest_are_held_out_and_nothing_later_is_trained_on() -> None:
    rng = np.random.default_rng(1)
    times = rng.random(300)
    sets = latest(_alone(300), times, (30, 15), 1)
    order = np.argsort(-times)
    assert set(order[:30]) == set(np.flatnonzero(sets == 1))  # the closed form: sort and cut
    assert set(order[30:45]) == set(np.flatnonzero(sets == 2))
    keys = rng.integers(0, 120, 300).astype(np.uint64)
    sets = latest(Units.by(keys), times, (30, 15), 1)
    assert all(len(np.unique(sets[keys == key])) == 1 for key in np.unique(keys))
    ends = [max(times[(keys == key)]) for key in np.unique(keys[sets == 1])]
    assert times[sets != 1].max() < min(ends)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-03-20", "2024-03-20T00:00:00+00:00"),
        ("2024/3/20 18:05", "2024-03-20T18:05:00+00:00"),
        ("2024-03-20T18:05:09.25Z", "2024-03-20T18:05:09.250+00:00"),
        ("2024-03-20T18:05:09+03:30", "2024-03-20T18:05:09+03:30"),
        ("20240320", "2024-03-20T00:00:00+00:00"),
        (1710892800, "2024-03-20T00:00:00+00:00"),
        ("1710892800000", "2024-03-20T00:00:00+00:00"),
        (datetime(2024, 3, 20, tzinfo=UTC), "2024-03-20T00:00:00+00:00"),
        # New Year's days and last days of leap years, as Iran's calendars print them.
        ("۱۴۰۳/۰۱/۰۱", "2024-03-20T00:00:00+00:00"),
        ("1400-01-01", "2021-03-21T00:00:00+00:00"),
        ("1399/12/30", "2021-03-20T00:00:00+00:00"),
        ("1403/12/30", "2025-03-20T00:00:00+00:00"),
        ("1357/11/22", "1979-02-11T00:00:00+00:00"),
        ("١٤٠٢/٠٢/٣١ ۱۲:۳۰", "2023-05-21T12:30:00+00:00"),
    ],
)
def test_times_are_read(value: object, expected: str) -> None:
    assert seconds(value) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize(
    "value", ["yesterday", "2024-13-01", "1402/12/30", "1403/07/31", True, None, "1e400", ""]
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        seconds(value)


@given(st.dates(date(1850, 1, 1), date(2100, 1, 1)))
@examples(100)
def test_iranian_years_have_the_length_of_the_sun(day: date) -> None:
    """Written as an Iranian date and read again: by counting days from a known New Year."""
    year, start = day.year - 621, datetime(day.year, 3, 1, tzinfo=UTC)
    new_year = datetime.fromtimestamp(seconds(f"{year}/01/01"), UTC)
    assert timedelta(days=18) <= new_year - start <= timedelta(days=21)  # 19 to 22 March
    assert seconds(f"{year}/07/01") - seconds(f"{year}/01/01") == 186 * 86400


# --- through the whole preparation


def _planted(seed: int) -> list[dict[str, Any]]:
    """Return texts with a near duplicate of every fifth one (in no group), labels, groups and times."""
    rng = random.Random(seed)
    day = datetime(2024, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = []
    for number in range(400):
        label = rng.choice(["خوب", "خوب", "خوب", "بد"])
        time = (day + timedelta(hours=rng.randrange(5000))).isoformat()
        about = {"label": label, "time": time, "licence": "CC-BY-4.0"}
        text = _text(rng)
        rows.append({"text": text, "group": f"g{rng.randrange(120)}", **about})
        if number % 5 == 0:
            rows.append({"text": text.replace(text.split()[3], "zzzz", 1), **about})
    rng.shuffle(rows)
    return rows


METHODS: list[dict[str, Any]] = [
    {"method": "random"},
    {"method": "stratified"},
    {"method": "k_fold", "folds": 4, "fold": 2},
    {"method": "leave_one_out", "fold": 3},
    {"method": "group"},
    {"method": "time"},
]


@pytest.mark.parametrize("split", METHODS, ids=lambda split: split["method"])
def test_near_duplicates_never_straddle(tmp_path: Path, split: dict[str, Any]) -> None:
    """By brute force over all pairs, for every method; and nobody of a group stands in two splits."""
    rows = _planted(1)
    report, parts = _prepare(tmp_path, rows, test=0.2, validation=0.1, **split)
    everything = [(name, example, _grams(example.text)) for name in parts for example in parts[name]]
    assert len(everything) == len(rows)
    assert sum(report.leakage["dropped"].values()) == 0
    for place, (name, one, grams) in enumerate(everything):
        for other, two, others in everything[:place]:
            if name != other:
                shared = len(grams & others)
                assert shared / (len(grams) + len(others) - shared) < 0.85
                assert one.about.get("group", 0) != two.about.get("group", 1)
    assert all(example.about["licence"] == "CC-BY-4.0" for _, example, _ in everything)
    assert report.drawn["method"] == split["method"]
    assert parts["test"]
    assert parts["validation"]


def test_all_folds_together_are_all_examples(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [{"text": _text(rng), "label": "ab"[n % 2]} for n in range(60)]
    held: list[int] = []
    for fold in range(1, 4):
        (tmp_path / str(fold)).mkdir()
        report, parts = _prepare(
            tmp_path / str(fold), rows, method="k_fold", folds=3, fold=fold, validation=0
        )
        held += [example.provenance.row for example in parts["test"]]
        assert report.splits == {"train": 40, "validation": 0, "test": 20}
        assert Counter(example.label for example in parts["test"]) == {"a": 10, "b": 10}
        assert any(f"fold {fold} of 3" in note for note in report.notes)
    assert sorted(held) == list(range(1, 61))


def test_groups_are_whole_however_large(tmp_path: Path) -> None:
    """As scikit-learn's GroupShuffleSplit: no group on both sides; ours counts examples, not groups."""
    rng = random.Random(3)
    rows = [{"text": _text(rng), "group": n % 7} for n in range(210)]
    _, parts = _prepare(tmp_path, rows, method="group", test=0.3, validation=0.15)
    groups = {name: {example.about["group"] for example in examples} for name, examples in parts.items()}
    assert sum(map(len, groups.values())) == 7
    assert {name: len(examples) for name, examples in parts.items()} == {
        "train": 120,
        "validation": 30,
        "test": 60,
    }
    train, test = next(
        GroupShuffleSplit(1, test_size=2, random_state=0).split(rows, groups=[n % 7 for n in range(210)])
    )
    assert (len(train), len(test)) == (150, 60)


def test_the_time_split_trains_on_what_was_before(tmp_path: Path) -> None:
    rng = random.Random(4)
    days = list(range(1, 101))
    rng.shuffle(days)
    rows = [{"text": _text(rng), "time": f"۱۴۰۲/{(d - 1) // 31 + 1:02}/{(d - 1) % 31 + 1:02}"} for d in days]
    _, parts = _prepare(tmp_path, rows, method="time", test=0.2, validation=0.1)
    numbers = {name: sorted(days[e.provenance.row - 1] for e in part) for name, part in parts.items()}
    assert numbers == {"train": days_of(1, 70), "validation": days_of(71, 80), "test": days_of(81, 100)}


def days_of(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = [{"text": _text(rng)} for _ in range(30)]
    for method, what in (("time", "time"), ("group", "group"), ("stratified", "label")):
        with pytest.raises(DataError, match=f"30 of 30 examples have no {what}"):
            _prepare(tmp_path, rows, method=method)
    with pytest.raises(DataError, match="there is no fold 31: there are 30"):
        _prepare(tmp_path, rows, method="leave_one_out", fold=31)
    with pytest.raises((ConfigError, ValueError), match="fold 6 of 5"):
        DataConfig.model_validate({"split": {"method": "k_fold", "fold": 6}})
    with pytest.raises((ConfigError, ValueError), match="test_path names another"):
        DataConfig.model_validate({"split": {"method": "k_fold"}, "test_path": "x"})


def test_a_bad_time_is_a_rejected_row(tmp_path: Path) -> None:
    rng = random.Random(6)
    rows = [{"text": _text(rng), "time": "2024-01-01"} for _ in range(40)] + [
        {"text": _text(rng), "time": "soon"}
    ]
    report, _ = _prepare(tmp_path, rows)
    assert report.rejected == {"the time cannot be read": 1}


# --- joining


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60))
@examples(200)
def test_components_are_those_of_a_walk(pairs: list[tuple[int, int]]) -> None:
    keys, roots = components(*(np.array([p[i] for p in pairs], np.uint64) for i in (0, 1)))
    found = dict(zip(keys.tolist(), roots.tolist(), strict=True))
    near: dict[int, set[int]] = {}
    for one, two in pairs:
        near.setdefault(one, {one}).add(two)
        near.setdefault(two, {two}).add(one)
    for start in near:
        seen, left = {start}, [start]
        while left:
            left += (new := near[left.pop()] - seen)
            seen |= new
        assert found[start] == min(seen)
