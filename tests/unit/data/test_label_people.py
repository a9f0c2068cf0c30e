"""Agreement, adjudication, the review queue and active learning, against the libraries people know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_kappa

from helpers.properties import examples
from tanzim.core.errors import DataError
from tanzim.core.records import Example, Provenance
from tanzim.data.label.active import choose, doubt
from tanzim.data.label.adjudicate import Verdict, adjudicate
from tanzim.data.label.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from tanzim.data.label.review import annotated, export_tasks, read_annotations, settled

Label = st.sampled_from(["1", "2", "3", "4"])


@examples(60)
@given(st.lists(st.tuples(Label, Label), min_size=2, max_size=30))
def test_cohen_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    one, two = map(list, zip(*pairs, strict=True))
    if len(set(one) | set(two)) < 2:
        with pytest.raises(DataError, match="all labels are the same"):
            cohen_kappa(one, two)
        return
    for weights in ("none", "linear", "quadratic"):
        expected = cohen_kappa_score(one, two, weights=None if weights == "none" else weights)
        assert cohen_kappa(one, two, weights=weights) == pytest.approx(expected, abs=1e-12)


@examples(60)
@given(st.integers(2, 5).flatmap(lambda a: st.lists(st.tuples(*[Label] * a), min_size=2, max_size=20)))
def test_fleiss_is_that_of_statsmodels(items: list[tuple[str, ...]]) -> None:
    by_annotator = list(zip(*items, strict=True))
    if len({label for item in items for label in item}) < 2:
        with pytest.raises(DataError):
            fleiss_kappa(by_annotator)
        return
    table, _ = aggregate_raters(np.array(items))
    assert fleiss_kappa(by_annotator) == pytest.approx(statsmodels_kappa(table), abs=1e-12)


@examples(80)
@given(
    st.lists(st.lists(st.none() | Label, min_size=3, max_size=3), min_size=3, max_size=20),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_alpha_is_that_of_krippendorff(items: list[list[str | None]], level: Any) -> None:
    paired = [item for item in items if sum(label is not None for label in item) >= 2]
    by_annotator = list(zip(*items, strict=True))
    if len({label for item in paired for label in item if label}) < 2:
        with pytest.raises(DataError):
            krippendorff_alpha(by_annotator, level=level)
        return
    numbers = [[np.nan if label is None else float(label) for label in row] for row in by_annotator]
    expected = krippendorff.alpha(reliability_data=numbers, level_of_measurement=level)
    assert krippendorff_alpha(by_annotator, level=level) == pytest.approx(expected, abs=1e-9)


def test_agreement_refuses_what_it_cannot_say() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        cohen_kappa(["a"], ["a", "b"])
    with pytest.raises(DataError, match="order does not name: b"):
        cohen_kappa(["a"], ["b"], order=["a"])
    with pytest.raises(DataError, match="different lengths"):
        krippendorff_alpha([["a"], ["a", "b"]])
    with pytest.raises(DataError, match="must be a number"):
        krippendorff_alpha([["a", "b"], ["a", "b"]], level="interval")


def test_adjudication_by_heads_weights_and_agreement() -> None:
    items = [{"a": "x", "b": "x", "c": "y"}, {"a": "x", "b": "y"}, {"a": "x", "b": "x", "c": "x"}, {}]
    assert [one.label for one in adjudicate(items)] == ["x", None, "x", None]
    assert [one.label for one in adjudicate(items, method="agreed")] == [None, None, "x", None]
    weighed = adjudicate(items, method="weighted", weights={"a": 1, "b": 1, "c": 3})
    assert [one.label for one in weighed] == ["y", None, "x", None]
    assert weighed[0].share == pytest.approx(0.6)
    assert [one.label for one in adjudicate(items, least=0.7)] == [None, None, "x", None]
    with pytest.raises(DataError, match="weight above 0"):
        adjudicate(items, method="weighted", weights={"a": 1, "b": 1})


def test_adjudication_by_the_model_beats_the_majority_where_annotators_differ() -> None:
    rng = np.random.default_rng(7)
    truth = rng.choice(["بله", "خیر"], 2000)
    items = []
    for label in truth:
        other = "خیر" if label == "بله" else "بله"
        right = {"careful": 0.96, "hasty": 0.65, "tired": 0.6, "bored": 0.62, "new": 0.65}
        items.append({who: str(label if rng.random() < p else other) for who, p in right.items()})
    by_heads = np.mean([v.label == t for v, t in zip(adjudicate(items), truth, strict=True)])
    by_model = np.mean([v.label == t for v, t in zip(adjudicate(items, method="model"), truth, strict=True)])
    assert by_model > 0.92
    assert by_model > by_heads + 0.05


TEXTS = ["می‌خواهم بخرم", "Free prize!", 'a "quoted"\nline', "ساعت ۵ می‌آیم", "ok"]
LABELS = ["spam", 'not "spam" & <safe>']


def _examples() -> list[Example]:
    return [
        Example("labelled", Provenance("پیام‌ها.csv", row), text=text, label="hidden truth")
        for row, text in enumerate(TEXTS, 1)
    ]


def _truth(text: str, annotator: str) -> str:
    return LABELS[(TEXTS.index(text) + len(annotator)) % 2]


def _fill(path: Path, kind: str, annotator: str) -> None:
    """Answer as each tool writes it (Label Studio's JSON export, Argilla's ``records.to_json``)."""
    if kind == "plain":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row["label"] = _truth(row["text"], annotator)
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return
    rows = json.loads(path.read_text(encoding="utf-8"))
    for number, row in enumerate(rows, 1):
        if kind == "argilla":
            label = _truth(row["fields"]["text"], annotator)
            row |= {"status": "completed", "_server_id": str(number)}
            row["responses"] = {"label": [{"value": label, "user_id": annotator}]}
        else:
            label = _truth(row["data"]["text"], annotator)
            result = {
                "id": "x1",
                "from_name": "label",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": [label]},
            }
            skipped = {"completed_by": 9, "was_cancelled": True, "result": [result]}
            done = {"completed_by": {"id": 3, "email": annotator}, "was_cancelled": False, "result": [result]}
            row |= {"id": number, "annotations": [skipped, done], "predictions": []}
    path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize("kind", ["plain", "label_studio", "argilla"])
def test_labels_come_back_onto_the_same_examples(kind: Any, tmp_path: Path) -> None:
    examples, names = _examples(), ["sara@x.ir", "علی", "bo"]
    files = export_tasks(examples, tmp_path, annotators=names, labels=LABELS, format=kind)
    written = [file.read_text(encoding="utf-8") for file in files]
    assert not any("hidden truth" in text for text in written)  # blind to what it was labelled
    orders = []
    for name, file, text in zip(names, files, written, strict=True):
        assert not any(other in text for other in names if other != name)  # and to one another
        orders.append([text.index(json.dumps(one, ensure_ascii=False)) for one in TEXTS])
        _fill(file, kind, name)
    assert len({tuple(np.argsort(order)) for order in orders}) > 1
    found = [one for file in files for one in read_annotations(file, labels=LABELS)]
    votes = annotated(examples, found)
    assert votes == [{name: _truth(text, name) for name in names} for text in TEXTS]
    if kind == "label_studio":
        interface = ET.parse(tmp_path / "labels.xml").getroot()
        assert [choice.get("value") for choice in interface.iter("Choice")] == LABELS


def test_open_tasks_give_no_annotation(tmp_path: Path) -> None:
    for kind in ("plain", "label_studio", "argilla"):
        for file in export_tasks(_examples(), tmp_path, annotators=["a"], labels=LABELS, format=kind):
            assert read_annotations(file) == []


def test_settled_examples_keep_who_said_what() -> None:
    examples = _examples()[:2]
    verdicts = [Verdict("spam", 2 / 3, {"a": "spam", "b": "spam", "c": "x"}), Verdict(None, 0.5, {})]
    done, open_ = settled(examples, verdicts)
    assert done[0].label == "spam"
    assert done[0].provenance == examples[0].provenance
    assert done[0].about["review"]["votes"]["c"] == "x"
    assert open_ == [examples[1]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "must be an object"),
        ('{"text": "x"}', "no task of a review queue"),
        ('{"task": {"row": 1}, "annotator": "a", "label": "spam"}', "cannot be read"),
        ('{"task": {"source": "s", "row": 1}, "annotator": "a", "label": "other"}', "is not one of"),
        ('[{"data": {"source": "s", "row": 1}, "annotations": [{"result": 5}]}]', "cannot be read"),
        ('[{"fields": {}, "metadata": {"source": "s", "row": 1}, "responses": []}, {"fields": 1}]', "read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_spoilt_files_are_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_annotations(path, labels=LABELS)


def test_annotations_must_fit_the_examples(tmp_path: Path) -> None:
    examples = _examples()
    (file,) = export_tasks(examples, tmp_path, annotators=["bo"], labels=LABELS)
    _fill(file, "plain", "bo")
    found = read_annotations(file)
    with pytest.raises(DataError, match="none of 2 examples"):
        annotated(examples[:2], found)
    other = [type(one)(one.provenance, one.annotator, "else") for one in found]
    with pytest.raises(DataError, match="twice"):
        annotated(examples, [*found, *other])
    with pytest.raises(DataError, match="two examples come from"):
        export_tasks([*examples, examples[0]], tmp_path, annotators=["bo"], labels=LABELS)
    for bad in (["../x"], ["a", "a"], [".."], [""]):
        with pytest.raises(DataError, match=r"different names|no annotator's name"):
            export_tasks(examples, tmp_path, annotators=bad, labels=LABELS)


def test_doubt_has_its_closed_forms() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    assert doubt(shares, "uncertainty") == pytest.approx([0.5, 0])
    assert doubt(shares, "margin") == pytest.approx([-0.2, -1])
    assert doubt(shares, "entropy") == pytest.approx([1.029653, 0], abs=1e-6)  # nats


def test_choice_takes_the_least_certain_and_then_the_farthest() -> None:
    shares = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.55, 0.45]])
    assert choose(shares, 2).tolist() == [1, 3]
    assert choose(shares, 9).tolist() == [1, 3, 2, 0]
    vectors = np.array([[0.0, 5.0], [0.0, 0.0], [3.0, 0.0], [0.1, 0.0]])
    assert choose(shares, 3, strategy="diversity", vectors_ND=vectors).tolist() == [1, 0, 2]
    known = np.array([[0.0, 5.0]])
    found = choose(shares, 2, strategy="diversity", vectors_ND=vectors, labelled_LD=known)
    assert found.tolist() == [2, 1]
    with pytest.raises(DataError, match="embedding"):
        choose(shares, 2, strategy="diversity")
    with pytest.raises(DataError, match="two classes"):
        choose(shares[:, :1], 2)


def test_diversity_takes_no_text_twice() -> None:
    same = np.zeros((6, 2))
    found = choose(np.full((6, 2), 0.5), 6, strategy="diversity", vectors_ND=same)
    assert sorted(found.tolist()) == list(range(6))
