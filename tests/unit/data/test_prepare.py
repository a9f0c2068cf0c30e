"""From files to splits: every row accounted for, nothing on both sides, the same seed the same split."""

from __future__ import annotations

import errno
import hashlib
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.data.config import DataConfig
from tanzim.data.inspect import inspect, scripts
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.similarity import jaccard
from tanzim.data.split import leakage
from tanzim.data.store import ExampleStore, ExampleWriter, write_examples

ZWNJ = "می‌خواهم خانه‌هایی را ببینم که نیم‌فاصله‌ دارند؛ ي و ك هم می‌مانند"


def _random_text(rng: random.Random, words: int = 40) -> str:
    return " ".join(
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(words)
    )


def _write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _prepare(out: Path, seed: int = 13, **config: Any) -> DataReport:
    return prepare(DataConfig.model_validate(config), out, seed=seed)


def _split(out: Path, name: str) -> list[Example]:
    return list(ExampleStore(out / f"{name}.arrow"))


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows: list[Any] = [{"text": _random_text(rng)} for _ in range(300)]
    rows += rows[:40]  # exact duplicates, drawn together
    rows += [{"text": row["text"] + "x"} for row in rows[40:80]]  # near duplicates
    rows += [{"text": ""}, {"nothing": 1}, 7]
    rng.shuffle(rows)
    path = _write(tmp_path / "a.jsonl", rows)
    report = _prepare(tmp_path / "out", path=path, max_train=200, max_test=20, split={"test": 0.2})
    rejected = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert report.rows_read == len(rows)
    assert len(rejected) == sum(report.rejected.values()) == 3
    dropped = sum(report.leakage["dropped"].values())
    kept = sum(report.splits.values())
    assert kept + len(rejected) + dropped + sum(report.unused.values()) == len(rows)
    assert report.splits["test"] == 20
    stored = {name: _split(tmp_path / "out", name) for name in report.splits}
    assert {name: len(examples) for name, examples in stored.items()} == report.splits
    places = [e.provenance.row for examples in stored.values() for e in examples]
    assert len({*places}) == len(places)
    assert all(rows[e.provenance.row - 1]["text"] == e.text for examples in stored.values() for e in examples)
    assert DataReport.read(tmp_path / "out") == report
    assert report.files[0]["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _grams(text: str) -> set[str]:
    return {" ".join(text.lower().split())[i : i + 5] for i in range(len(text) - 4)}


def _jaccard(one: str, two: str) -> float:
    shared = len(_grams(one) & _grams(two))
    return shared / (len(_grams(one)) + len(_grams(two)) - shared)


def _with_near_duplicates() -> list[str]:
    rng = random.Random(2)
    texts = [_random_text(rng) for _ in range(120)]
    for text in texts[:60]:
        words = text.split()
        for place in rng.sample(range(len(words)), rng.choice([1, 2, 4])):
            words[place] = "zzzz"
        texts.append(" ".join(words))
    return texts


def test_no_near_duplicate_is_left_across_splits(tmp_path: Path) -> None:
    """By brute force over all pairs: near duplicates are drawn into one split, so that none is dropped."""
    texts = _with_near_duplicates()
    path = _write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    report = _prepare(tmp_path / "out", path=path, split={"test": 0.3, "validation": 0.2})
    train, validation, test = (_split(tmp_path / "out", n) for n in ("train", "validation", "test"))
    for one_side, other_side in ((train, validation + test), (validation, test)):
        worst = max(_jaccard(a.text, b.text) for a in one_side for b in other_side)
        assert worst < 0.85
    assert len(train + validation + test) == len(texts)
    assert sum(report.leakage["dropped"].values()) == report.leakage["near"] == 0


def test_near_duplicates_of_a_test_file_are_dropped(tmp_path: Path) -> None:
    """By brute force over all pairs; and what was dropped had one."""
    texts = _with_near_duplicates()
    held, texts = texts[:60], texts[60:]
    paths = {
        "path": _write(tmp_path / "a.jsonl", [{"text": text} for text in texts]),
        "test_path": _write(tmp_path / "b.jsonl", [{"text": text} for text in held]),
    }
    report = _prepare(tmp_path / "out", **paths, split={"validation": 0})
    kept = {e.text for e in _split(tmp_path / "out", "train")}
    assert max(_jaccard(a, b) for a in kept for b in held) < 0.85
    dropped = [t for t in texts if t not in kept]
    assert len(dropped) == report.leakage["near"] == report.leakage["dropped"]["train"] > 10
    assert all(pair["similarity"] >= 0.85 for pair in report.leakage["pairs"])
    assert all(max(_jaccard(t, o) for o in held) >= 0.85 for t in dropped)


def test_leakage_between_files_is_repaired_refused_or_allowed(tmp_path: Path) -> None:
    rng = random.Random(3)
    train = [{"text": _random_text(rng)} for _ in range(50)]
    test = [{"text": _random_text(rng)} for _ in range(20)]
    train[4] = {"text": test[7]["text"].upper() + "  "}  # the same but for case and space
    train[9] = {"text": test[2]["text"] + "s"}
    paths = {
        "path": _write(tmp_path / "train.jsonl", train),
        "test_path": _write(tmp_path / "test.jsonl", test),
    }
    report = _prepare(tmp_path / "a", **paths, split={"validation": 0})
    assert (report.leakage["exact"], report.leakage["near"]) == (1, 1)
    assert report.leakage["dropped"] == {"validation": 0, "train": 2}
    assert report.splits == {"train": 48, "validation": 0, "test": 20}
    assert [e.provenance.row for e in _split(tmp_path / "a", "train") if e.provenance.row in (5, 10)] == []
    shown = [
        (p["train_side"].rsplit(", ")[1], p["held_out"].rsplit(", ")[1]) for p in report.leakage["pairs"]
    ]
    assert shown == [("row 5", "row 8"), ("row 10", "row 3")]
    with pytest.raises(DataError, match="1 exact and 1 near duplicates stand on both sides"):
        _prepare(tmp_path / "b", **paths, split={"validation": 0, "leakage": "error"})
    report = _prepare(tmp_path / "c", **paths, split={"validation": 0, "leakage": "allow"})
    assert (report.leakage["exact"], report.leakage["near"], report.splits["train"]) == (1, 1, 50)
    assert any("flatter" in note for note in report.notes)


def test_persian_spellings_count_as_the_same(tmp_path: Path) -> None:
    train = [{"text": f"این جمله‌ی شماره {n} درباره‌ی شهر {'یزد' * (n + 1)} است"} for n in range(20)]
    test = [{"text": train[3]["text"].replace("ی", "ي").replace("ک", "ك").replace("\u200c", " ")}]
    paths = {
        "path": _write(tmp_path / "train.jsonl", train),
        "test_path": _write(tmp_path / "test.jsonl", test),
    }
    report = _prepare(tmp_path / "out", **paths, split={"validation": 0, "near_duplicate": 1.0})
    assert report.leakage["exact"] == 1
    assert 4 not in [e.provenance.row for e in _split(tmp_path / "out", "train")]


def test_same_prompt_with_another_answer_is_reported(tmp_path: Path) -> None:
    rng = random.Random(4)
    train = [{"prompt": _random_text(rng, 8), "completion": _random_text(rng)} for _ in range(30)]
    test = [{"prompt": train[5]["prompt"], "completion": _random_text(rng)}]
    paths = {
        "path": _write(tmp_path / "train.jsonl", train),
        "test_path": _write(tmp_path / "test.jsonl", test),
    }
    report = _prepare(tmp_path / "out", **paths, split={"validation": 0})
    assert report.leakage["same_prompt_other_answer"] == 1
    assert report.splits["train"] == 30


def test_kin_are_drawn_into_one_split(tmp_path: Path) -> None:
    """Questions on one text never stand on both sides, and none of them is dropped for it."""
    rng = random.Random(5)
    rows = []
    for _ in range(80):
        context = _random_text(rng, 60)
        rows += [
            {"context": context, "question": _random_text(rng, 5), "answer": _random_text(rng, 4)}
            for _ in range(4)
        ]
    report = _prepare(tmp_path / "out", path=_write(tmp_path / "a.jsonl", rows))
    assert sum(report.splits.values()) == len(rows)
    contexts = [
        {e.messages[0].content.split("\n\n")[1] for e in _split(tmp_path / "out", name)}
        for name in report.splits
    ]
    assert not contexts[0] & contexts[1]
    assert not contexts[0] & contexts[2]
    assert not contexts[1] & contexts[2]
    assert report.splits["test"] == pytest.approx(0.1 * len(rows), abs=4)


def test_one_question_asked_of_all_is_still_split(tmp_path: Path) -> None:
    rng = random.Random(6)
    rows = [{"prompt": "Write a poem.", "completion": _random_text(rng)} for _ in range(100)]
    report = _prepare(tmp_path / "out", path=_write(tmp_path / "a.jsonl", rows))
    assert report.splits == {"train": 85, "validation": 5, "test": 10}


def test_seed_decides_and_repeats(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = _write(tmp_path / "a.jsonl", [{"text": _random_text(rng)} for _ in range(200)])
    one, again = _prepare(tmp_path / "a", path=path), _prepare(tmp_path / "b", path=path)
    other = _prepare(tmp_path / "c", path=path, seed=14)
    assert one.fingerprints == again.fingerprints
    assert (tmp_path / "a" / "train.arrow").read_bytes() == (tmp_path / "b" / "train.arrow").read_bytes()
    assert one.fingerprints["test"] != other.fingerprints["test"]
    assert one.splits == {"train": 170, "validation": 10, "test": 20}


def test_separate_files_stay_what_they_are(tmp_path: Path) -> None:
    rng = random.Random(8)
    paths = {
        key: _write(tmp_path / f"{key}.jsonl", [{"text": _random_text(rng)} for _ in range(count)])
        for key, count in (("path", 30), ("validation_path", 7), ("test_path", 9))
    }
    report = _prepare(tmp_path / "out", **paths)
    assert report.splits == {"train": 30, "validation": 7, "test": 9}
    for key, name in (("path", "train"), ("validation_path", "validation"), ("test_path", "test")):
        assert {e.provenance.source for e in _split(tmp_path / "out", name)} == {paths[key]}


def test_half_spaces_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows = [{"prompt": f"{ZWNJ} {n}", "completion": f"\u200f{ZWNJ}\u200c\n{n}"} for n in range(20)]
    _prepare(tmp_path / "out", path=_write(tmp_path / "a.jsonl", rows), split={"leakage": "allow"})
    for name in ("train", "validation", "test"):
        for example in _split(tmp_path / "out", name):
            row = rows[example.provenance.row - 1]
            assert [m.content for m in example.messages] == [row["prompt"], row["completion"]]


def test_labels_lengths_and_notes_are_reported(tmp_path: Path) -> None:
    rows = [{"text": f"{'x' * n} {n}", "label": n % 2} for n in range(100)]
    config = {"labels": {0: "even", 1: "odd"}, "split": {"leakage": "allow"}}
    report = _prepare(tmp_path / "out", path=_write(tmp_path / "a.jsonl", rows), **config)
    totals = {label: sum(counts.values()) for label, counts in report.labels.items()}
    assert totals == {"even": 50, "odd": 50}
    lengths = [len(row["text"]) for row in rows]
    bins = [(0, 50), (50, 100), (100, 200)]
    expected = [sum(low <= n < high for n in lengths) for low, high in bins]
    assert report.lengths["counts"][:3] == expected
    assert (report.lengths["max"], report.lengths["mean"]) == (max(lengths), sum(lengths) / 100)
    squad = [
        {"context": "c" * 9, "question": f"q{n}", "answers": [], "is_impossible": True} for n in range(9)
    ]
    report = _prepare(tmp_path / "out", path=_write(tmp_path / "b.jsonl", squad), split={"leakage": "allow"})
    assert "9 unanswerable questions are answered with data.no_answer" in report.notes[0]


def test_mixed_folder_keeps_each_format(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    _write(folder / "a.jsonl", [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(20)])
    (folder / "b.json").write_text(
        json.dumps([{"instruction": f"do {n}", "output": f"done {n}"} for n in range(20)])
    )
    (folder / "notes.bin").write_bytes(b"x")
    report = _prepare(tmp_path / "out", path=str(folder), split={"leakage": "allow"})
    assert report.format == "mixed"
    assert [file["format"] for file in report.files] == ["prompt_completion", "alpaca"]
    assert report.rows_read == 40
    assert len(report.skipped) == 1


def test_everything_dropped_is_an_error(tmp_path: Path) -> None:
    row = {"text": "the very same text stands in every row of this file"}
    paths = {
        "path": _write(tmp_path / "a.jsonl", [row] * 9),
        "test_path": _write(tmp_path / "b.jsonl", [row]),
    }
    with pytest.raises(DataError, match=r"nothing is left to train on: 10 examples.*9 dropped"):
        _prepare(tmp_path / "out", **paths, split={"validation": 0})


def test_progress_is_told_regularly(tmp_path: Path) -> None:
    rng = random.Random(9)
    path = _write(tmp_path / "a.jsonl", [{"text": _random_text(rng, 10)} for _ in range(3500)])
    calls: list[tuple[int, int | None, str]] = []
    config = DataConfig(path=path)
    prepare(
        config, tmp_path / "out", seed=1, progress=lambda done, total, note: calls.append((done, total, note))
    )
    assert [done for done, _, note in calls if note.startswith("reading")] == [1000, 2000, 3000]
    assert {note for *_, note in calls} >= {"comparing the splits", "writing the splits"}


def test_rows_with_a_long_text_in_common_are_not_all_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 rows that are all alike, but below the threshold, with one true pair among them."""
    compared: list[float] = []

    def counted(one: Any, two: Any) -> float:
        compared.append(jaccard(one, two))
        return compared[-1]

    monkeypatch.setattr(leakage, "jaccard", counted)
    rng = random.Random(11)
    words = _random_text(rng, 3000).split()
    common = " ".join(rng.choices(words, k=90))
    texts = [f"{common} {' '.join(rng.choices(words, k=20))}" for _ in range(2000)]
    train, test = [{"text": t} for t in texts[:1500]], [{"text": t} for t in texts[1500:]]
    train[1234] = {"text": test[321]["text"] + " more"}
    assert 0.6 < _jaccard(texts[0], texts[1]) < 0.8
    paths = {
        "path": _write(tmp_path / "train.jsonl", train),
        "test_path": _write(tmp_path / "test.jsonl", test),
    }
    report = _prepare(tmp_path / "out", **paths, split={"validation": 0})
    assert 1 <= len(compared) < 1500 * 500 / 5  # of all pairs
    assert report.leakage["near"] == 1
    assert report.leakage["pairs"][0]["train_side"].endswith("row 1235")
    assert bool(report.leakage["crowded"]) == any("look alike" in note for note in report.notes)


def test_repeats_in_train_are_reported_and_kept(tmp_path: Path) -> None:
    rng = random.Random(12)
    rows = [{"text": _random_text(rng)} for _ in range(20)]
    paths = {
        "path": _write(tmp_path / "a.jsonl", rows + rows[:5]),
        "test_path": _write(tmp_path / "b.jsonl", [{"text": _random_text(rng)}]),
    }
    report = _prepare(tmp_path / "out", **paths, split={"validation": 0})
    assert (report.leakage["repeats_in_train"], report.splits["train"]) == (5, 25)


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = _write(tmp_path / "a.jsonl", [{"text": f"text {n}"} for n in range(9)])
    monkeypatch.setattr(ExampleWriter, "_flush", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        _prepare(tmp_path / "out", path=path)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".steps"]


def test_store_is_a_sequence(tmp_path: Path) -> None:
    call = ToolCall("f", {"شهر": "یزد", "n": [1, 2.5, None]}, "c1")
    examples = [
        Example("text", Provenance("a", n), text=f"{n} {ZWNJ}" * (1 + n % 50)) if n % 2 else
        Example("messages", Provenance("b", n), messages=(
            Message("user", "q", weight=0.0), Message("assistant", thinking="t", tool_calls=(call,))
        ), tools=({"type": "function"},))
        for n in range(9000)
    ]  # fmt: skip
    assert write_examples(tmp_path / "a.arrow", iter(examples)) == 9000
    store = ExampleStore(tmp_path / "a.arrow")
    assert len(store) == 9000
    assert list(store) == examples
    assert (store[-1], store[4095:4098]) == (examples[-1], examples[4095:4098])
    with pytest.raises(IndexError):
        store[9000]


@pytest.mark.parametrize("content", [b"", b"not arrow", None])
def test_store_that_is_none_is_one_clear_error(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        ExampleStore(tmp_path / "a.arrow")


def test_failed_write_leaves_no_store(tmp_path: Path) -> None:
    def examples() -> Any:
        yield Example("text", Provenance("a", 1), text="x")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_examples(tmp_path / "a.arrow", examples())
    assert list(tmp_path.iterdir()) == []


def test_inspection_of_a_small_file(tmp_path: Path) -> None:
    rows = [{"comment": f"{ZWNJ} {n}", "label_id": int(n % 10 == 0)} for n in range(100)] + [
        {"comment": "", "label_id": 0}
    ]
    seen = inspect(_write(tmp_path / "a.jsonl", rows), DataConfig())
    assert (seen.format, seen.columns) == ("labelled", {"text": "comment", "label": "label_id"})
    assert (seen.rows_seen, seen.rows, seen.complete) == (101, 101, True)
    assert seen.rejected == {"the text is blank": 1}
    assert seen.labels == {"0": 90, "1": 10}
    assert (seen.scripts, seen.zwnj) == ({"persian": 1.0}, 1.0)
    assert len(seen.samples) == 3
    advice = " ".join(seen.advice)
    assert all(words in advice for words in ("1,000", "unbalanced", "data.labels"))
    assert json.loads(json.dumps(seen.to_json())) is not None


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz"])
def test_inspection_of_a_big_file_estimates(kind: str, tmp_path: Path) -> None:
    import gzip

    rng = random.Random(10)
    words = _random_text(rng, 2000).split()
    rows = [{k: " ".join(rng.choices(words, k=15)) for k in ("prompt", "completion")} for _ in range(20_000)]
    path = tmp_path / f"a.{kind}"
    text = json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), 1) if kind.endswith("gz") else text.encode())
    seen = inspect(str(path), DataConfig())
    assert (seen.rows_seen, seen.complete) == (5000, False)
    assert seen.rows == pytest.approx(20_000, rel=0.03)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello there", "latin"),
        ("چه خبر از گل‌ها؟", "persian"),
        ("إلى المدرسة", "arabic"),
        ("Привет", "cyrillic"),
        ("你好", "cjk"),
    ],
)
def test_scripts(text: str, script: str) -> None:
    counts = scripts(text)
    assert counts == {script: sum(letter.isalpha() for letter in text)}


def test_inspect_names_the_cleaning_that_the_texts_need(tmp_path: Path) -> None:
    good = ["این کتاب‌ها را می‌خواهم، نه آن‌ها را.", "nothing is wrong here"]
    bad = {
        "repair_text": "این کتاب را دیروز خواندم".encode().decode("cp1252", "ignore"),
        "html": "<p>one <b>two</b> three</p>",
        "persian": "اين كتاب ها را مي خواهم",
    }
    for step, text in ({"none": good[0]} | bad).items():
        path = tmp_path / f"{step}.jsonl"
        rows = [*good * 10, *[text] * 5]
        path.write_text("\n".join(json.dumps({"text": row}) for row in rows), encoding="utf-8")
        advice = [line for line in inspect(str(path), DataConfig()).advice if "data.steps" in line]
        wanted = 0 if step == "none" else 1
        assert len(advice) == wanted, advice
        assert all(line.startswith("5 of ") and f"the step {step} " in line for line in advice)
