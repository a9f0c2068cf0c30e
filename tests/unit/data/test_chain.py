"""The chain of steps: what is cached, what is counted, what is refused; and the splits after it."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.config import Section
from tanzim.core.errors import ConfigError, DataError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance
from tanzim.data import steps
from tanzim.data.cache import alone, prune, used
from tanzim.data.chain import Done, run_steps
from tanzim.data.clean.config import LengthConfig
from tanzim.data.config import DataConfig
from tanzim.data.dedup.config import DedupExactConfig
from tanzim.data.executor import Local
from tanzim.data.ledger import join_lines
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.shards import Dataset, write_shards
from tanzim.data.step import Removed, Step
from tanzim.data.store import ExampleStore

# The configs of these tests' own steps are no members of the union of all steps.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
ZWNJ = "می‌خواهم کتاب‌ها را"


class MadeConfig(Section):
    """A step of these tests."""

    type: Literal["made"] = "made"
    does: str = ""
    every: int = 3
    text: str = ""


class Made(Step[MadeConfig]):
    """Does to every so many-th text what its config says."""

    def apply(self, examples) -> Iterator[Any]:
        for example in examples:
            self.counts["seen"] += 1
            if (example.provenance.row + len(example.text)) % self.config.every:
                yield example
                continue
            match self.config.does:
                case "remove":
                    yield Removed(example, f"row {example.provenance.row % 2}", "it is so")
                case "change":
                    yield replace(example, text=example.text + "!")
                case "tell":  # in place, as a careless step would
                    example.about["told"] = True
                    yield example
                case "add":
                    origin = example.provenance
                    made = replace(origin, derived=f"{origin.derived}made")
                    yield example
                    yield replace(example, provenance=made, text=self.config.text or f"{example.text}+")
                case "repeat":
                    yield example
                    yield example
                case "take twice":
                    yield Removed(example, "once")
                    yield Removed(example, "twice")
                case "lose":
                    pass


class MadeAfterConfig(MadeConfig):
    type: Literal["made_after"] = "made_after"


class MadeAfter(Made):
    training_only = True


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tanzim.data.steps_of_tests")
    module.__dict__.update(Made=Made, MadeAfter=MadeAfter)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(steps.STEPS, "made", ("steps_of_tests", "Made"))
    monkeypatch.setitem(steps.STEPS, "made_after", ("steps_of_tests", "MadeAfter"))


def data(folder: Path, texts: list[str], origin: int = 0) -> Dataset:
    examples = [
        Example("text", Provenance("a.txt", row), text=text, about={"language": "fa"})
        for row, text in enumerate(texts, 1)
    ]
    return write_shards(folder, examples, origin)


def run(configs: list[Any], dataset: Dataset, cache: Path, seed: int = 1) -> list[Done]:
    return list(run_steps(configs, dataset, cache, seed=seed, executor=Local(1)))


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tanzim.data.shards.ROWS", 7)


TEXTS = [f"{ZWNJ} {'x' * (number % 9)} {number % 40}" for number in range(60)]


@pytest.mark.usefixtures("small_shards")
def test_a_second_run_does_nothing_and_a_change_reruns_what_follows(tmp_path: Path) -> None:
    dataset = data(tmp_path / "in", TEXTS)
    configs = [MadeConfig(does="change"), LengthConfig(max_characters=28), DedupExactConfig()]
    first = run(configs, dataset, tmp_path / "cache")
    assert [done.report.cached for done in first] == [False] * 3
    before = files(tmp_path / "cache")
    second = run(configs, dataset, tmp_path / "cache")
    assert [done.report.cached for done in second] == [True] * 3
    assert files(tmp_path / "cache") == before
    assert [list(done.dataset) for done in second] == [list(done.dataset) for done in first]
    assert [{**done.report.to_json(), "cached": False} for done in second] == [
        done.report.to_json() for done in first
    ]
    changed = run(
        [MadeConfig(does="change"), LengthConfig(max_characters=27), DedupExactConfig()],
        dataset,
        tmp_path / "cache",
    )
    assert [done.report.cached for done in changed] == [True, False, False]
    other_seed = run(configs, dataset, tmp_path / "cache", seed=2)
    assert [done.report.cached for done in other_seed] == [False] * 3
    other = run(configs, data(tmp_path / "in2", [*TEXTS, "more"]), tmp_path / "cache")
    assert [done.report.cached for done in other] == [False] * 3


@pytest.mark.usefixtures("small_shards")
def test_what_comes_out_the_same_is_not_worked_on_again(tmp_path: Path) -> None:
    """A changed step with the same result does not make those after it run (early cut-off)."""
    dataset = data(tmp_path / "in", TEXTS)
    run([LengthConfig(min_characters=1), DedupExactConfig()], dataset, tmp_path / "cache")
    again = run([LengthConfig(min_characters=2), DedupExactConfig()], dataset, tmp_path / "cache")
    assert [done.report.cached for done in again] == [False, True]
    kept = again[0].dataset.shards
    assert [shard.sha256 for shard in kept] == [shard.sha256 for shard in dataset.shards]
    # and what is the same lies on the disk once
    assert [s.path.stat().st_ino for s in kept] == [s.path.stat().st_ino for s in dataset.shards]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("kind", [MadeConfig(does="remove"), DedupExactConfig()])
def test_an_interrupted_step_goes_on_at_its_shard(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = data(tmp_path / "in", TEXTS)
    expected = run([kind], dataset, tmp_path / "whole")[0]
    judged: list[str] = []
    from tanzim.data import chain

    original = chain._judge

    def broken(task: Any) -> None:
        judged.append(task.out.name)
        if len(judged) == 4:
            raise KeyboardInterrupt
        original(task)

    monkeypatch.setattr(chain, "_judge", broken)
    with pytest.raises(KeyboardInterrupt):
        run([kind], dataset, tmp_path / "cache")
    found = run([kind], dataset, tmp_path / "cache")[0]
    assert judged == [f"part-{n:05d}" for n in (0, 1, 2, 3, 3, 4, 5, 6, 7, 8)]
    assert list(found.dataset) == list(expected.dataset)
    assert found.dataset.fingerprint == expected.dataset.fingerprint
    assert {**found.report.to_json(), "seconds": 0} == {**expected.report.to_json(), "seconds": 0}


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("lose", r"lost 20 examples without a reason, the first being a\.txt, row"),
        ("repeat", r"gave out a\.txt, row \d+, which it had not or no more"),
        ("take twice", r"took out a\.txt, row \d+, which it had not or no more"),
    ],
)
def test_a_step_that_does_not_account_for_an_example_is_stopped(does: str, said: str, tmp_path: Path) -> None:
    texts = ["same" for _ in range(60)]
    with pytest.raises(DataError, match=said) as caught:
        run([MadeConfig(does=does)], data(tmp_path / "in", texts), tmp_path / "cache")
    assert caught.value.where == "data.steps: made"
    assert not list((tmp_path / "cache").rglob("done.json"))


def test_a_change_in_place_is_noticed(tmp_path: Path) -> None:
    done = run([MadeConfig(does="tell", every=1)], data(tmp_path / "in", TEXTS), tmp_path / "cache")[0]
    assert all(example.about == {"language": "fa", "told": True} for example in done.dataset)
    assert done.report.changed == len(TEXTS)


class Judged(Made):
    """A step that asks a power."""

    parallel = False

    def apply(self, examples) -> Iterator[Any]:
        judge = self.powers.judge("any")
        return (replace(e, about={**e.about, **judge([e.text])[0]}) for e in examples)


@pytest.mark.usefixtures("small_shards")
def test_a_step_with_a_power_runs_here_and_shows_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tanzim.data.steps_of_tests"], "Made", Judged)
    monkeypatch.setattr("tanzim.data.executor._TOLD", 2)
    told: list[int] = []
    done = run_steps(
        [MadeConfig()],
        data(tmp_path / "in", TEXTS[:20]),
        tmp_path / "cache",
        seed=1,
        powers=Powers(judge=lambda name: lambda texts: [{"length": float(len(text))} for text in texts]),
        executor=Local(2),
        progress=lambda rows, total, note: told.append(rows),
    )
    assert [e.about["length"] for e in next(iter(done)).dataset] == [len(text) for text in TEXTS[:20]]
    assert told == sorted(told)
    assert {*told} == {0, 2, 4, 6, 7, 9, 11, 13, 14, 16, 18, 20}


@pytest.mark.usefixtures("small_shards")
def test_the_rows_that_workers_get_through_never_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tanzim.data.executor._LOOK", 0.001)
    told: list[int] = []
    steps = run_steps(
        [LengthConfig()],
        data(tmp_path / "in", TEXTS[:20]),
        tmp_path / "cache",
        seed=1,
        executor=Local(2),
        progress=lambda rows, total, note: told.append(rows),
    )
    assert next(iter(steps)).dataset.rows == 20
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 20)


def by_hand(config: MadeConfig, rows: list[Example]) -> tuple[list[Example], Counter[str]]:
    """What a made step does, without the chain."""
    out, counts = [], Counter({"in": len(rows)})
    for example in rows:
        if (example.provenance.row + len(example.text)) % config.every:
            out.append(example)
        elif config.does == "remove":
            counts["removed"] += 1
        elif config.does == "change":
            out.append(replace(example, text=example.text + "!"))
            counts["changed"] += 1
        else:
            made = replace(example.provenance, derived=f"{example.provenance.derived}made")
            out += [example, replace(example, provenance=made, text=f"{example.text}+")]
            counts["added"] += 1
    return out, counts


@examples(25)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=40),
    st.lists(
        st.tuples(st.sampled_from(["remove", "change", "add"]), st.integers(1, 4)), min_size=1, max_size=4
    ),
    st.integers(2, 9),
)
def test_every_example_is_accounted_for(texts: list[str], chain: list[tuple[str, int]], rows: int) -> None:
    """On random chains: the same examples, in order, and the same counts as by hand."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tanzim.data.shards.ROWS", rows)
        folder = Path(name)
        dataset = data(folder / "in", texts)
        configs: list[MadeConfig] = []
        for does, every in chain:
            # A second step that adds would give what it makes the names of what the first made.
            twice = does == "add" and any(one.does == "add" for one in configs)
            configs.append(MadeConfig(does="change" if twice else does, every=every))
        expected = list(dataset)
        for config, done in zip(configs, run(configs, dataset, folder / "cache"), strict=True):
            expected, counts = by_hand(config, expected)
            report = done.report
            assert list(done.dataset) == expected
            assert report.rows_in + report.added == report.rows_out + report.removed.total()
            assert (report.rows_in, report.rows_out) == (counts["in"], len(expected))
            assert (report.added, report.changed, report.removed.total()) == (
                counts["added"], counts["changed"], counts["removed"],
            )  # fmt: skip
            assert report.counts["seen"] == report.rows_in
            lines = sum(path.read_bytes().count(b"\n") for path in done.rejected)
            assert lines == report.removed.total()


def _write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _texts(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("ابپتدرزسشabcdefgh", k=6)) for _ in range(800)]
    return [" ".join(rng.choices(words, k=25)) for _ in range(count)]


def _prepared(folder: Path, after: list[Any], **config: Any) -> DataReport:
    config = {"workers": 1, **config}
    whole = DataConfig.model_validate(config)
    whole = whole.model_copy(update={"steps": [*whole.steps, *after]})
    return prepare(whole, folder, seed=5)


def test_rejected_explains_every_removal(tmp_path: Path) -> None:
    texts = _texts(300)
    rows: list[Any] = [{"text": text} for text in texts]
    rows[10] = {"text": texts[3].upper()}
    rows[20] = {"text": "short"}
    rows[30] = {"nothing": 1}
    held = [{"text": f"{texts[40]} more"}]
    report = _prepared(
        tmp_path / "out",
        [MadeConfig(does="remove", every=50)],
        path=_write(tmp_path / "a.jsonl", rows),
        test_path=_write(tmp_path / "b.jsonl", held),
        steps=[{"type": "length", "min_characters": 10}, {"type": "dedup_exact"}],
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    kept = {
        (e.provenance.source, e.provenance.row)
        for name in ("train", "validation", "test")
        for e in ExampleStore(tmp_path / "out" / f"{name}.arrow")
    }
    gone = [(line["file"], line["row"]) for line in lines]
    assert len({*gone}) == len(gone)
    paths = (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    assert kept | {*gone} == {(paths[0], n) for n in range(1, 301)} | {(paths[1], 1)}
    assert not kept & {*gone}
    why = {line["row"]: (line.get("step"), line["reason"], line["content"]) for line in lines}
    assert why[21] == ("length", "too short", "short")
    assert why[31][:2] == (None, why[31][1])
    assert why[11][:2] == ("dedup_exact", "the same as another example")
    assert why[41] == ("split", "the same or nearly the same stands in a held-out split", why[41][2])
    assert {step for step, *_ in why.values()} == {None, "length", "dedup_exact", "made", "split"}
    assert report.rows_read == 301


def test_steps_on_training_data_leave_what_is_held_out_alone(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"text": text} for text in _texts(200)])
    plain = _prepared(tmp_path / "plain", [], path=path)
    worked = _prepared(
        tmp_path / "worked", [MadeAfterConfig(does="change", every=1), MadeAfterConfig(does="add")], path=path
    )
    for name in ("validation", "test"):
        assert (tmp_path / "worked" / f"{name}.arrow").read_bytes() == (
            tmp_path / "plain" / f"{name}.arrow"
        ).read_bytes()
        assert worked.fingerprints[name] == plain.fingerprints[name]
    train = list(ExampleStore(tmp_path / "worked" / "train.arrow"))
    assert worked.steps[0]["rows_in"] == plain.splits["train"]
    assert all("!" in example.text for example in train)
    assert len(train) == plain.splits["train"] + worked.steps[1]["added"] > plain.splits["train"]


def test_leakage_is_looked_for_again_after_them(tmp_path: Path) -> None:
    texts = _texts(100)
    report = _prepared(
        tmp_path / "out",
        [MadeAfterConfig(does="add", every=4, text=texts[99])],
        path=_write(tmp_path / "a.jsonl", [{"text": text} for text in texts[:99]]),
        test_path=_write(tmp_path / "b.jsonl", [{"text": texts[99]}]),
    )
    added = report.steps[0]["added"]
    assert added > 10
    assert report.leakage["after_steps"]["exact"] == added
    assert all(e.text != texts[99] for e in ExampleStore(tmp_path / "out" / "train.arrow"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(line["step"], line["derived"]) for line in lines] == [("split", "made")] * added


def test_a_step_on_all_data_cannot_stand_after_one_on_training_data(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"text": text} for text in _texts(20)])
    with pytest.raises(ConfigError, match="length looks at all examples, and stands after made_after"):
        _prepared(tmp_path / "out", [MadeAfterConfig(), LengthConfig()], path=path)


def test_results_that_the_newest_preparations_did_not_use_go(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"text": text} for text in _texts(50)])
    cache = tmp_path / "cache"

    def prepared(most: int) -> DataReport:
        config = DataConfig.model_validate(
            {"path": path, "kept_preparations": 2, "steps": [{"type": "length", "max_characters": most}]}
        )
        return prepare(config, tmp_path / "out", seed=1, cache=cache)

    reports = []
    for most in (220, 210, 200):
        for folder in cache.glob("*-*"):  # as if an hour had gone by since
            old = folder.stat().st_mtime_ns - 3600 * 10**9
            os.utime(folder, ns=(old, old))
        record = cache / "preparations.json"
        if record.is_file():
            started = json.loads(record.read_text())
            record.write_text(json.dumps({name: at - 3600 * 10**9 for name, at in started.items()}))
        reports.append(prepared(most))
    assert [report.cache["deleted"] for report in reports[:2]] == [0, 0]
    assert len(list(cache.glob("read-*"))) == 1  # used by all
    assert reports[2].cache["deleted_bytes"] > 0
    left = [json.loads((p / "done.json").read_text())["report"] for p in cache.glob("length-*")]
    assert sorted(one["settings"]["max_characters"] for one in left) == [200, 210]
    assert prepared(210).steps[0]["cached"]


def test_one_preparation_waits_for_another(tmp_path: Path) -> None:
    said: list[str] = []

    class Waited(Exception):
        pass

    def progress(done: int, total: int | None, note: str) -> None:
        said.append(note)
        raise Waited

    with alone(tmp_path, "one", progress), pytest.raises(Waited), alone(tmp_path, "two", progress):
        pass
    assert said == ["waiting for another preparation to end"]
    with alone(tmp_path, "two", progress):
        used(tmp_path / "step-1")
    assert prune(tmp_path, 1)["deleted"] == 0


def test_an_example_is_stored_and_read_as_it_is(tmp_path: Path) -> None:
    example = Example(
        "pair",
        Provenance("a", 1, "made 2"),
        messages=(Message("system", "s"), Message("user", ZWNJ, weight=0.0)),
        chosen=(Message("assistant", "yes", thinking="t"),),
        rejected=(Message("assistant", "no"),),
        tools=({"type": "function"},),
        about={"group": "g", "score": [1, 2.5, None]},
    )
    dataset = write_shards(tmp_path, [example])
    assert list(dataset) == [example]
    join_lines([], tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
