"""A whole evaluation with an engine that answers from a table: every number can be counted by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tanzim.core.errors import ConfigError
from tanzim.core.records import Example, Message, Provenance, Rendered
from tanzim.evaluate.answers import System
from tanzim.evaluate.config import EvaluateConfig
from tanzim.evaluate.measure import evaluate
from tanzim.evaluate.report import EvalReport, table_rows
from tanzim.infer.request import AnswerScore, Completion, Request

END = 0


class CharRenderer:
    """A template whose tokens are code points: question, newline, answer, end."""

    stop_ids = (END,)

    def prompt(self, messages: Sequence[Message], tools: Sequence = ()) -> list[int]:
        return [ord(c) for message in messages for c in message.content + "\n"]

    def render(self, example: Example) -> Rendered:
        ids = [*self.prompt(example.messages[:-1]), *map(ord, example.messages[-1].content), END]
        return Rendered(tuple(ids), (1.0,) * len(ids), (), example.provenance)


class TableEngine:
    """Answers by adapter and question; finds a label likely if it would answer it."""

    context_length = 500

    def __init__(self, table: dict) -> None:
        self.table, self.asked, self.fail_after = table, 0, math.inf

    def _answer(self, prompt: list[int], adapter: str | None) -> str:
        return self.table[adapter]("".join(map(chr, prompt)).strip())

    def generate(self, requests: Sequence[Request], *, max_batch: int) -> list[Completion]:
        if self.asked >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += len(requests)
        return [
            Completion((END,), self._answer(r.prompt_ids, r.adapter), "stop", None, len(r.prompt_ids), 0)
            for r in requests
        ]

    def score_answers(self, pairs: Sequence, adapter: str | None, *, max_batch: int) -> list:
        scores = []
        for prompt, answers in pairs:
            wanted = [*map(ord, self._answer(prompt, adapter)), END]
            scores.append([AnswerScore((-0.1,) if a == wanted else (-3.0, -2.0)) for a in answers])
        return scores


def chat(row: int, question: str, answer: str) -> Example:
    turns = (Message("user", question), Message("assistant", answer))
    return Example("messages", Provenance("test.jsonl", row), messages=turns)


SPAM = [chat(i + 1, f"m{i}", "spam" if i % 3 == 0 else "ham") for i in range(30)]
SPAM += [chat(i + 1, f"پیام {i}", "spam" if i % 3 == 0 else "ham") for i in range(30, 60)]


def right(question: str) -> str:
    return "spam" if int(question.removeprefix("m").removeprefix("پیام ")) % 3 == 0 else "ham"


def systems(table: dict, **losses: tuple[float, int]) -> tuple[TableEngine, list[System]]:
    engine = TableEngine(table)
    loss = {None: losses.get("base"), "tuned": losses.get("tuned")}
    measure = loss.__getitem__ if losses else None
    return engine, [
        System("base", engine, None, "hash-of-base", measure),
        System("tuned", engine, "tuned", "hash-of-tuned", measure),
    ]


def run(tmp_path: Path, examples: list[Example], table: dict, **options: object) -> EvalReport:
    losses = options.pop("losses", {})
    config = EvaluateConfig(**{"resamples": 200, "batch_size": 2, **options})
    _, both = systems(table, **losses)
    return evaluate(examples, both, renderer=CharRenderer(), config=config, out=tmp_path, seed=3)


CLASSIFY = {None: lambda question: "ham", "tuned": right}


def test_classification_by_generation_and_by_scoring(tmp_path: Path) -> None:
    report = run(tmp_path, SPAM, CLASSIFY, losses={"base": (200.0, 100), "tuned": (50.0, 100)})
    base, tuned = report.system("base"), report.system("tuned")
    assert report.labels == ("ham", "spam")
    assert base.metrics["accuracy"]["all"].value == pytest.approx(2 / 3)
    assert base.metrics["macro_f1"]["all"].value == pytest.approx((0.8 + 0) / 2)  # ham: P 2/3, R 1
    assert base.metrics["scored_accuracy"]["all"].value == pytest.approx(2 / 3)
    assert tuned.metrics["scored_macro_f1"]["all"].value == 1
    assert tuned.metrics["macro_f1"]["Arabic"].items == 30
    assert report.groups == {"Latin": 30, "Arabic": 30}
    assert base.labels["spam"].recall == 0
    assert base.labels["ham"].support == 40
    assert (base.loss, base.perplexity) == pytest.approx((2.0, math.exp(2.0)))
    verdicts = {(c.metric, c.group): c.verdict for c in report.comparisons}
    assert set(verdicts.values()) == {"better"}
    assert ("accuracy", "Latin") in verdicts


def test_record_survives_json_and_makes_a_table(tmp_path: Path) -> None:
    report = run(tmp_path, SPAM, CLASSIFY, losses={"base": (200.0, 100), "tuned": (50.0, 100)})
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert EvalReport.from_json(saved) == report
    rows = table_rows(report)
    assert rows[0] == ["measure", "base", "tuned", "tuned − base", "verdict"]
    assert rows[1] == ["held-out loss", "2.0000", "0.5000", "-75.0 %", ""]
    assert {len(row) for row in rows} == {5}
    accuracy = next(row for row in rows if row[0] == "accuracy")
    assert accuracy[1].startswith("66.7 [")
    assert accuracy[2] == "100.0 [100.0, 100.0]"
    assert accuracy[4] == "better"


def test_items_file_keeps_every_answer_and_score(tmp_path: Path) -> None:
    run(tmp_path, SPAM, CLASSIFY)
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(SPAM)
    first = lines[0]
    assert first["messages"][0]["content"] == "m0"
    assert first["provenance"] == {"source": "test.jsonl", "row": 1, "derived": ""}
    assert first["reference"] == "spam"
    assert first["systems"]["base"]["answer"] == "ham"
    assert first["systems"]["base"]["scores"]["accuracy"] == 0
    assert first["systems"]["tuned"]["label_logprobs"] == {"ham": -5.0, "spam": -0.1}


def test_json_fields_others_and_no_change(tmp_path: Path) -> None:
    examples = [chat(i + 1, f"q{i}", json.dumps({"kind": "refund", "id": i})) for i in range(20)]
    table = {
        None: lambda question: json.dumps({"kind": "refund", "id": -1}),
        "tuned": lambda question: json.dumps({"id": int(question[1:]), "kind": "refund"}),
    }
    rules = tmp_path / "rules.jsonl"
    answers = [json.dumps({"kind": "refund", "id": i}) for i in range(19)] + ["no idea"]
    rules.write_text("".join(json.dumps({"answer": a}) + "\n" for a in answers), encoding="utf-8")
    report = run(tmp_path, examples, table, others={"rules": str(rules)})
    base, tuned, other = (report.system(name).metrics for name in ("base", "tuned", "rules"))
    assert base["json_fields"]["all"].value == pytest.approx(0.5)
    assert base["json_all"]["all"].value == 0
    assert (base["json_fields.kind"]["all"].value, base["json_fields.id"]["all"].value) == (1, 0)
    assert tuned["json_all"]["all"].value == 1
    assert other["json_valid"]["all"].value == pytest.approx(19 / 20)
    assert report.groups == {}
    verdicts = {(c.against, c.metric): c.verdict for c in report.comparisons}
    assert verdicts[("base", "json_all")] == "better"
    assert verdicts[("base", "json_valid")] == "no measurable change"
    assert verdicts[("rules", "json_valid")] == "no measurable change"
    assert [row[0] for row in table_rows(report)][-2:] == ["field kind", "field id"]


def test_interrupted_evaluation_continues_and_a_torn_line_is_forgotten(tmp_path: Path) -> None:
    config = EvaluateConfig(resamples=200, batch_size=2)
    engine, both = systems(CLASSIFY)
    engine.fail_after = 24
    with pytest.raises(KeyboardInterrupt):
        evaluate(SPAM, both, renderer=CharRenderer(), config=config, out=tmp_path / "run", seed=3)
    log = tmp_path / "run" / "answers.jsonl"
    with log.open("ab") as stream:
        stream.write(b'{"key": "half a li')
    kept = len(log.read_text(encoding="utf-8").splitlines()) - 1
    engine, both = systems(CLASSIFY)
    continued = evaluate(SPAM, both, renderer=CharRenderer(), config=config, out=tmp_path / "run", seed=3)
    assert kept == 24
    assert engine.asked == 2 * len(SPAM) - kept
    assert continued == run(tmp_path / "other", SPAM, CLASSIFY)
    assert all(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())


def test_other_weights_are_asked_again(tmp_path: Path) -> None:
    run(tmp_path, SPAM, CLASSIFY)
    engine, (base, _) = systems({**CLASSIFY, "tuned": lambda question: "ham"})
    retrained = System("tuned", engine, "tuned", "hash-after-more-training")
    config = EvaluateConfig(resamples=200)
    report = evaluate(SPAM, [base, retrained], renderer=CharRenderer(), config=config, out=tmp_path, seed=3)
    assert engine.asked == len(SPAM)
    assert report.system("tuned").metrics["accuracy"]["all"].value == pytest.approx(2 / 3)


def test_what_cannot_be_asked_is_counted(tmp_path: Path) -> None:
    long = chat(99, "x" * 600, "ham")
    report = run(tmp_path, [*SPAM, long, Example("text", Provenance("t", 1), text="raw")], CLASSIFY)
    assert report.items == len(SPAM)
    assert report.examples == len(SPAM) + 2
    assert sum(report.skipped.values()) == 2


def test_text_alone_has_a_loss_and_no_metrics(tmp_path: Path) -> None:
    texts = [Example("text", Provenance("t", i), text="raw") for i in range(3)]
    report = run(tmp_path, texts, CLASSIFY, losses={"base": (9.0, 3), "tuned": (3.0, 3)})
    assert report.metrics == ()
    assert [row[0] for row in table_rows(report)] == ["measure", "held-out loss", "perplexity"]
    assert EvalReport.from_json(report.to_json()) == report


def test_base_can_be_left_out_and_names_must_differ(tmp_path: Path) -> None:
    report = run(tmp_path, SPAM, CLASSIFY, base=False)
    assert [system.name for system in report.systems] == ["tuned"]
    assert not report.comparisons
    assert len(table_rows(report)[0]) == 2
    with pytest.raises(ConfigError, match="tuned"):
        run(tmp_path, SPAM, CLASSIFY, others={"tuned": "x.jsonl"})


def test_chosen_metrics_overrule_the_automatic_ones(tmp_path: Path) -> None:
    report = run(tmp_path, SPAM, CLASSIFY, metrics=["chrf"])
    assert report.metrics == ("chrf",)
    assert report.labels == ()
    with pytest.raises(ConfigError, match="'number' fits none"):
        run(tmp_path, SPAM, CLASSIFY, metrics=["chrf", "number"])
