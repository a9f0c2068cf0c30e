"""The review queue: its files, its logs, sessions that go on, what is asked next, what is agreed on."""

from __future__ import annotations

import json
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.records import Example, Provenance
from tanzim.data.label.agreement import alpha_interval
from tanzim.data.label.consensus import alpha_means, consensus, kappa_means, measure
from tanzim.data.label.log import Log, answers
from tanzim.data.label.pick import pick
from tanzim.data.label.queue import Queue
from tanzim.data.label.session import Session
from tanzim.pipeline.data_queue import queue_data
from tanzim.pipeline.data_review import agree_data, export_review, import_review, open_review

LABELS = ("spam", "ham", "نامربوط")


def examples(count: int, first: int = 1) -> list[Example]:
    return [
        Example("text", Provenance("f.jsonl", row), text=f"متن {row}") for row in range(first, first + count)
    ]


def made(path: Path, count: int = 6, labels: tuple[str, ...] = LABELS) -> Queue:
    queue = Queue(path, labels)
    queue.save()
    return queue.add(examples(count))


def label(queue: Queue, name: str, labels: list[str | None]) -> None:
    """Give the tasks labels in the queue's order; "" leaves one open."""
    with Log(queue, name) as log:
        for example, said in zip(queue.tasks, labels, strict=True):
            if said != "":
                log.answer(example.provenance, said)


def test_a_queue_reads_back(tmp_path: Path) -> None:
    queue = made(tmp_path / "q").add(examples(2, 7))
    assert Queue.open(tmp_path / "q") == queue
    with pytest.raises(DataError, match="two examples come from"):
        queue.add(examples(1))


def test_annotators_have_orders_of_their_own_batch_after_batch(tmp_path: Path) -> None:
    queue = made(tmp_path, 20).add(examples(20, 21))
    one, two = queue.order("sara"), queue.order("علی")
    assert one != two
    assert one == Queue.open(tmp_path).order("sara")
    for order in (one, two):
        assert {example.provenance.row for example in order[:20]} == set(range(1, 21))
        assert len({example.provenance for example in order}) == 40


actions = st.lists(st.sampled_from(["spam", "ham", "skip", "undo", "again"]), max_size=30)


@settings(max_examples=50, deadline=None)
@given(actions)
def test_a_session_is_the_simple_one_on_paper(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    queue = made(tmp_path_factory.mktemp("queue") / "q", 5)
    order = [example.provenance for example in queue.order("sara")]
    said: dict[Provenance, str | None] = {}
    pending = list(order)
    log = Log(queue, "sara")
    session = Session(queue.order("sara"), log)
    for key in keys:
        if key == "again":
            log.__exit__(None, None, None)
            log = Log(queue, "sara")
            session = Session(queue.order("sara"), log)
            skipped = [one for one in order if one in said and said[one] is None]
            pending = [one for one in order if one not in said] + skipped
        elif key == "undo":
            assert session.undo() == bool(said)
            if said:
                last = list(said)[-1]
                del said[last]
                pending = [last, *(one for one in pending if one != last)]
        elif pending:
            origin = pending.pop(0)
            said.pop(origin, None)
            said[origin] = None if key == "skip" else key
            session.answer(said[origin])
        current = session.current
        assert (current.provenance if current else None) == (pending[0] if pending else None)
        assert session.progress.done == sum(one is not None for one in said.values())
        assert session.progress.skipped == sum(one is None for one in said.values())
        assert list(answers(queue, "sara").items()) == list(said.items())  # on disk at once
    log.__exit__(None, None, None)


def test_one_annotator_never_sees_another(tmp_path: Path) -> None:
    queue = made(tmp_path)
    label(queue, "sara", ["spam"] * 6)
    with open_review(str(tmp_path), "ali") as (_, session):
        assert session.progress.done == 0
        assert session.votes == Counter()
    assert queue.names() == ["sara"]  # who says nothing leaves no file


def test_a_line_cut_short_is_asked_again(tmp_path: Path) -> None:
    queue = made(tmp_path)
    label(queue, "sara", ["spam", "ham", "", "", "", ""])
    file = tmp_path / "answers" / "sara.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert list(answers(queue, "sara").values()) == ["spam"]
    with Log(queue, "sara") as log:
        log.answer(queue.tasks[1].provenance, "ham")
    assert list(answers(queue, "sara").values()) == ["spam", "ham"]


def test_two_terminals_of_one_annotator_are_one_too_many(tmp_path: Path) -> None:
    queue = made(tmp_path)
    with Log(queue, "sara"), pytest.raises(DataError, match="another terminal"):
        Log(queue, "sara")


def test_a_full_disk_keeps_what_was_answered(tmp_path: Path) -> None:
    queue = made(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Log(queue, "sara") as log:
        log.answer(queue.tasks[0].provenance, "spam")
        size = log.path.stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, before[1]))
            with pytest.raises(DataError, match="cannot be written"):
                log.answer(queue.tasks[1].provenance, "ham")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert log.path.stat().st_size == size
        log.answer(queue.tasks[2].provenance, "ham")
    assert list(answers(queue, "sara").values()) == ["spam", "ham"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("queue.json", "{", "damaged"),
        ("queue.json", '{"tanzim_queue": 9}', "version 9"),
        ("queue.json", "[]", "damaged"),
        ("tasks-0001.jsonl", '{"kind": "text"}\n', "damaged"),
        ("tasks-0001.jsonl", "\x00\n", "damaged"),
        ("answers/sara.jsonl", "{}\n", "no answer of a review"),
        ("answers/sara.jsonl", "[" * 100_000 + "\n", "no answer of a review"),
        (
            "answers/sara.jsonl",
            '{"task": {"source": "x", "row": 1}, "label": "spam"}\n',
            "no task of this queue",
        ),
        ("answers/sara.jsonl", '{"task": {"source": "f.jsonl", "row": 1}, "label": "x"}\n', "is not one of"),
    ],
)
def test_spoilt_queues_are_refused(file: str, content: str, said: str, tmp_path: Path) -> None:
    label(made(tmp_path), "sara", ["spam"] * 6)
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        agree_data(str(tmp_path))
    assert str(tmp_path) in str(caught.value.where)


def test_what_is_no_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no review queue"):
        Queue.open(tmp_path)
    for labels in [("one",), ("a", "a"), ("a", " ")]:
        with pytest.raises(DataError, match="no choice"):
            Queue(tmp_path, labels).save()
    queue = made(tmp_path / "q")
    with Log(queue, "sara") as log, pytest.raises(DataError, match="is not one of"):
        log.answer(queue.tasks[0].provenance, "other")
    for name in ("../x", "", ".hidden", "a/b", "x" * 300):
        with pytest.raises(DataError, match="no annotator's name"):
            Log(queue, name)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Queue(tmp_path / "file" / "q", LABELS).save()


def test_a_further_person_decides_what_is_disputed(tmp_path: Path) -> None:
    queue = made(tmp_path)
    with pytest.raises(DataError, match="nobody has labelled"):
        consensus(queue)
    label(queue, "sara", ["spam", "spam", "ham", "ham", None, ""])
    label(queue, "ali", ["spam", "ham", "ham", "spam", "ham", ""])
    found = agree_data(str(tmp_path))
    assert [one.label for one in found.consensus.verdicts] == ["spam", None, "ham", None, "ham", None]
    assert (found.consensus.disputed, found.labelled, found.single) == ([1, 3], 3, 1)
    assert agree_data(str(tmp_path), votes=2).labelled == 2
    with (
        pytest.raises(DataError, match="sara labelled this queue"),
        open_review(str(tmp_path), "sara", disputed=True),
    ):
        pass
    with open_review(str(tmp_path), "boss", disputed=True) as (_, session):
        assert session.progress.total == 2
        while session.current is not None:
            assert session.votes == Counter({"spam": 1, "ham": 1})
            session.answer("نامربوط")
    out = tmp_path / "labelled.jsonl"
    assert agree_data(str(tmp_path), output=str(out)).consensus.disputed == []
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["label"] for row in rows] == ["spam", "نامربوط", "ham", "نامربوط", "ham"]
    assert rows[1]["about"]["review"]["decided_by"] == "boss"
    numbers = json.loads((tmp_path / "agreement.json").read_text(encoding="utf-8"))
    assert numbers["items"] == 4
    assert numbers["confused"] == [["spam", "ham", 2]]


def test_numbers_of_several_annotators(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(["1", "2", "3"], 60)
    votes: list[dict[str, str]] = []
    for one in truth:
        said = {who: str(one if rng.random() < 0.8 else rng.choice(["1", "2", "3"])) for who in "abc"}
        votes.append({who: label for who, label in said.items() if rng.random() < 0.9})
    numbers = [[float(one[who]) if who in one else np.nan for one in votes] for who in "abc"]
    for ordered, level in ((False, "nominal"), (True, "ordinal")):
        found = measure(votes, ["1", "2", "3"], ordered=ordered)
        expected = krippendorff.alpha(reliability_data=numbers, level_of_measurement=level)
        assert found.alpha == pytest.approx(expected)
        assert found.interval is not None
        assert found.interval[0] < expected < found.interval[1]
    assert len(found.pairs) == 3
    assert found.everybody == sum(len(one) == 3 for one in votes)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # Two annotators, two labels, each right with 0.9: alpha of very many items is (2·0.9 − 1)².
    rng = np.random.default_rng(11)
    covered = 0
    for run in range(60):
        truth = rng.random(80) < 0.5
        table = [np.where(rng.random(80) < 0.9, truth, ~truth).astype(int).astype(str) for _ in range(2)]
        low, high = alpha_interval([list(row) for row in table], draws=200, seed=run)
        covered += low <= 0.64 <= high
    assert 50 <= covered <= 60  # 57 expected; below 50 has a chance of one in a thousand


def test_numbers_that_cannot_be_told_say_why() -> None:
    found = measure([{"a": "x", "b": "x"}] * 4, ["x", "y"])
    assert (found.alpha, found.fleiss, found.same) == (None, None, 1.0)
    assert any("told from chance" in note for note in found.notes)
    with pytest.raises(DataError, match="labels of two annotators"):
        measure([{"a": "x"}], ["x", "y"])


def test_words_for_numbers() -> None:
    # The tables of Landis and Koch 1977, and of Krippendorff 2004.
    said = [kappa_means(value) for value in (-0.2, 0.1, 0.2, 0.3, 0.6, 0.61, 0.9, 1.0)]
    assert said == [
        "less than by chance", "slight", "slight", "fair", "moderate", "substantial", "almost perfect",
        "almost perfect",
    ]  # fmt: skip
    assert [alpha_means(value) for value in (0.8, 0.79, 0.667, 0.66)] == [
        "reliable",
        "for tentative conclusions only",
        "for tentative conclusions only",
        "not reliable",
    ]


def test_the_least_certain_are_asked_first() -> None:
    known = [(f"great good nice {n}", "pos") for n in range(8)] + [
        (f"bad awful poor {n}", "neg") for n in range(8)
    ]
    candidates = ["great nice", "awful poor", "great awful", "good good great", "bad bad poor"]
    found = pick(candidates, known, ["pos", "neg", "none"], 1, by="margin")
    assert (found.by, found.places) == ("margin", [2])
    assert pick(candidates, known, ["pos", "neg"], 1).by == "diversity"
    for by in ("uncertainty", "entropy", "diversity"):
        assert sorted(pick(candidates, known, ["pos", "neg"], 9, by=by).places) == list(range(5))  # type: ignore[arg-type]
    cold = pick(candidates, known[:3], ["pos", "neg"], 2, by="margin")
    assert (cold.by, len(cold.places)) == ("random", 2)
    assert "fewer than two classes" in cold.why


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_queue_grows_by_what_teaches_most(tmp_path: Path) -> None:
    rows = [{"text": f"{word} شماره {n}"} for n in range(30) for word in ("عالی خوب", "بد زشت")]
    rows += [{"text": f"عالی زشت {n}"} for n in range(3)]
    source, folder = write(tmp_path / "f.jsonl", rows), str(tmp_path / "q")
    with pytest.raises(DataError, match="no choice"):
        queue_data(folder, source)
    first = queue_data(folder, source, labels=["خوب", "بد"], count=12)
    assert (first.added, first.left) == (12, 51)
    with open_review(folder, "sara") as (_, session):
        while session.current is not None:
            session.answer("خوب" if session.current.text.startswith("عالی خوب") else "بد")
    second = queue_data(folder, count=3, by="margin")
    assert {example.text[:8] for example in second.queue.batches[1]} == {"عالی زشت"}
    with pytest.raises(ConfigError, match="the queue has the labels"):
        queue_data(folder, labels=["x", "y"])
    queue_data(folder, count=100)
    with pytest.raises(DataError, match="no text left"):
        queue_data(folder)


def test_known_labels_are_learnt_from_and_not_asked_again(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(20)]
    source = write(tmp_path / "f.jsonl", rows)
    with pytest.raises(DataError, match="no text left"):
        queue_data(str(tmp_path / "q"), source)
    again = queue_data(str(tmp_path / "q"), source, relabel=True, count=4)
    assert again.queue.labels == ("a", "b")
    task = (tmp_path / "q" / "tasks-0001.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(task)["kind"] == "labelled"
    with open_review(str(tmp_path / "q"), "sara") as (_, session):
        assert session.progress.total == 4


def test_answers_come_in_and_tasks_go_out(tmp_path: Path) -> None:
    queue = made(tmp_path / "q")
    label(queue, "sara", ["spam", "", "", "", "", ""])
    (file,) = export_review(str(queue.path), "sara")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 5  # what she has answered is left out
    for row in rows:
        row["label"] = "ham"
    write(file, rows)
    assert import_review(str(queue.path), str(file)) == {"sara": 5}
    assert list(answers(queue, "sara").values()) == ["spam", *["ham"] * 5]
    with pytest.raises(DataError, match="answered everything"):
        export_review(str(queue.path), "sara")
    write(file, [{**rows[0], "label": "wrong"}])
    with pytest.raises(DataError, match="is not one of"):
        import_review(str(queue.path), str(file))
    write(file, [{**rows[0], "task": {"source": "other", "row": 1}}])
    with pytest.raises(DataError, match="none of 6 examples"):
        import_review(str(queue.path), str(file))
