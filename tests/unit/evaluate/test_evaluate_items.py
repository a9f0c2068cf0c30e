"""Which items are asked, which metrics are chosen, and how other systems' answers are matched."""

import json
from pathlib import Path

import pytest

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Message, Provenance, ToolCall
from tanzim.evaluate.items import choose_metrics, find_labels, read_answers, select_items


def chat(row: int, *turns: str, calls: tuple[ToolCall, ...] = ()) -> Example:
    roles = ["user", "assistant"]
    messages = [Message(roles[i % 2], text) for i, text in enumerate(turns)]
    if calls:
        messages.append(Message("assistant", tool_calls=calls))
    return Example("messages", Provenance("test.jsonl", row), messages=tuple(messages))


def test_items_are_a_seeded_sample_and_nothing_vanishes() -> None:
    examples = [chat(i + 1, f"question {i}", f"answer {i}") for i in range(30)]
    examples += [
        Example("text", Provenance("t", 1), text="raw"),
        chat(40, "only a question"),
        chat(41, "call it", calls=(ToolCall("f", {}),)),
        chat(42, "say nothing", " "),
    ]
    items, skipped = select_items(examples, most=10, seed=7)
    assert [item.index for item in items] == [i.index for i in select_items(examples, most=10, seed=7)[0]]
    assert [item.index for item in items] == sorted({item.index for item in items})
    assert [item.index for item in items] != [i.index for i in select_items(examples, most=10, seed=8)[0]]
    assert len(items) == 10
    assert all(item.reference == f"answer {item.index}" for item in items)
    assert all(item.example.messages[-1].role == "user" for item in items)
    everything, _ = select_items(examples, most=100, seed=7)
    assert len(everything) + sum(skipped.values()) == len(examples)
    assert len(skipped) == 4


def test_groups_are_scripts_of_the_question() -> None:
    wrap = "Turn the message into a JSON ticket with its kind.\nMessage: "
    examples = [chat(1, f"{wrap}سفارشم نرسید", "{}"), chat(2, f"{wrap}late again", "{}")]
    items, _ = select_items(examples, most=5, seed=0)
    assert [item.group for item in items] == ["Arabic", "Latin"]


@pytest.mark.parametrize(
    ("references", "labels", "metrics"),
    [
        (['{"a": 1}', "{}"], (), ["json_fields", "json_valid"]),
        (["so 2\n#### 2", "#### 3"], (), ["number"]),
        (["spam", "ham"], ("ham", "spam", "other"), ["macro_f1", "accuracy"]),
        (["happy", "sad"] * 10, (), ["macro_f1", "accuracy"]),
        (["Tehran", "Rome", "Oslo"], (), ["exact_match", "rouge_l", "chrf"]),
        (["A long and free answer. " * 9, "Another one, of many words. " * 9], (), ["rouge_l", "chrf"]),
        ([], (), []),
    ],
)
def test_metrics_follow_from_the_references(references: list, labels: tuple, metrics: list) -> None:
    chosen, reason = choose_metrics(references, find_labels(references, labels))
    assert chosen == metrics
    assert reason


def test_labels_need_a_small_closed_set() -> None:
    assert find_labels(["yes", "no", "yes ", "no"], ()) == ("no", "yes")
    assert find_labels([f"answer {i}" for i in range(50)], ()) == ()
    assert find_labels(["one line\nand another"] * 9, ()) == ()
    assert find_labels(["راضي"], ["راضی", "ناراضی"]) == ("راضی", "ناراضی")


def lines(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), encoding="utf-8")
    return path


def test_other_answers_match_by_order_or_by_row(tmp_path: Path) -> None:
    examples = [chat(5, "a", "b"), chat(2, "c", "d")]
    ordered = lines(tmp_path / "ordered.jsonl", {"answer": "first"}, {"answer": "second"})
    assert read_answers("rules", ordered, examples) == ["first", "second"]
    by_row = lines(tmp_path / "rows.jsonl", *({"row": r, "answer": f"to {r}"} for r in range(1, 7)))
    assert read_answers("rules", by_row, examples) == ["to 5", "to 2"]
    unfinished = tmp_path / "no_newline.jsonl"
    unfinished.write_text('{"answer": "x"}\n{"answer": "y"}', encoding="utf-8")
    assert read_answers("rules", unfinished, examples) == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"answer": "x"}\n', "1 answers for 2"),
        ('{"answer": 3}\n{"answer": "x"}\n', "line 1"),
        ("{\n", "line 1"),
        ('{"row": 5, "answer": "x"}\n', "1 of 2 test rows have no answer"),
    ],
)
def test_other_answers_that_do_not_fit_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_answers("rules", path, [chat(5, "a", "b"), chat(2, "c", "d")])
    with pytest.raises(DataError, match="no such file"):
        read_answers("rules", tmp_path / "none.jsonl", [])
