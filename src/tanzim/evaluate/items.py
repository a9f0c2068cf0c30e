"""Which test examples are generated for, and which metrics fit their answers."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json, Message
from tanzim.core.seeds import derive
from tanzim.score.metrics import fits, parse_object
from tanzim.score.text import normalise, scripts

MOST_LABELS = 20
LONGEST_LABEL = 60
SHORT_ANSWER = 60


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to answer: a test example without its last answer, which is the reference.

    Args:
        index: place in the test set, from 0.
        example: the conversation up to the question.
        reference: the right answer.
        group: script of the question.

    """

    index: int
    example: Example
    reference: str
    group: str = ""


def select_items(examples: Sequence[Example], *, most: int, seed: int) -> tuple[list[Item], dict[str, int]]:
    """Take a seeded sample of the examples that end with an answer in words.

    Returns:
        The items in the order of the test set, and why how many examples are no items.

    """
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    for index, example in enumerate(examples):
        reason = _unfit(example)
        if reason:
            skipped[reason] += 1
            continue
        question = replace(example, messages=example.messages[:-1])
        items.append(Item(index, question, example.messages[-1].content))
    chosen = random.Random(derive(seed, "evaluate", "items")).sample(items, min(most, len(items)))
    chosen.sort(key=lambda item: item.index)
    groups = scripts([_question(item.example.messages) for item in chosen])
    grouped = [replace(item, group=group) for item, group in zip(chosen, groups, strict=True)]
    return grouped, dict(skipped)


def _unfit(example: Example) -> str | None:
    if example.kind != "messages":
        return f"{example.kind}: no question to answer"
    last = example.messages[-1] if example.messages else None
    if last is None or last.role != "assistant" or len(example.messages) == 1:
        return "no question with an assistant's answer at the end"
    if not last.content.strip():
        return "the answer is a tool call" if last.tool_calls else "the answer is empty"
    return None


def _question(messages: Sequence[Message]) -> str:
    users = [message.content for message in messages if message.role == "user"]
    return users[-1] if users else ""


def find_labels(references: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the closed set of labels the references come from, () if they are no labels.

    Args:
        references: the right answers.
        labels: the labels the data declares; with none, at most 20 different short lines, each used
            five times on average, count as labels.

    """
    distinct = {normalise(reference): reference.strip() for reference in references}
    declared = {normalise(label): label for label in labels}
    if declared and distinct.keys() <= declared.keys():
        return tuple(declared.values())
    few = len(distinct) <= min(MOST_LABELS, max(2, len(references) // 5)) and len(references) > len(distinct)
    short = all(len(text) <= LONGEST_LABEL and "\n" not in text for text in distinct.values())
    return tuple(sorted(distinct.values())) if few and short else ()


def choose_metrics(references: Sequence[str], labels: Sequence[str]) -> tuple[list[str], str]:
    """Look at the right answers and say which metrics judge answers like them, and why."""
    if not references:
        return [], "no test example has an answer to compare with"
    if all(parse_object(reference) is not None for reference in references):
        return ["json_fields", "json_valid"], "every answer is a JSON object"
    if all("####" in reference and fits("number", reference) for reference in references):
        return ["number"], 'every answer ends in "####" and a number'
    if labels:
        return ["macro_f1", "accuracy"], f"every answer is one of {len(labels)} labels"
    longest = sorted(map(len, references))[len(references) // 2]
    if longest <= SHORT_ANSWER:
        return [
            "exact_match",
            "rouge_l",
            "chrf",
        ], f"answers are short text (half within {longest} characters)"
    return ["rouge_l", "chrf"], "answers are free text"


def read_answers(name: str, path: Path, examples: Sequence[Example]) -> list[str]:
    """Read another system's answers, one per test example.

    Each line is an object with ``answer``; lines are in the order of the test set, or carry ``row``,
    the row of the test file they answer.

    Raises:
        DataError: the file is missing or no JSONL, or answers too few or too many examples.

    """
    if not path.is_file():
        raise DataError("there is no such file of answers", where=f"evaluate.others.{name}: {path}")
    lines = _lines(name, path)
    if lines and all("row" in line for line in lines):
        sources = {example.provenance.source for example in examples}
        if len(sources) > 1:
            raise DataError(
                f"the test set comes from {len(sources)} files, so a row alone names no example",
                where=str(path),
                fix="write the answers in the order of the test set, without row",
            )
        by_row = {line["row"]: line["answer"] for line in lines}
        missing = [example.provenance.row for example in examples if example.provenance.row not in by_row]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(examples)} test rows have no answer (first: row {missing[0]})",
                where=str(path),
            )
        return [by_row[example.provenance.row] for example in examples]
    if len(lines) != len(examples):
        raise DataError(
            f"{len(lines)} answers for {len(examples)} test examples",
            where=f"evaluate.others.{name}: {path}",
            fix='write one line {"answer": …} per test row, or add its "row" to each',
        )
    return [line["answer"] for line in lines]


def _lines(name: str, path: Path) -> list[Json]:
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
        if not text.strip():
            continue
        where = f"evaluate.others.{name}: {path}, line {number}"
        try:
            line = json.loads(text.decode("utf-8-sig"))
        except ValueError as error:
            raise DataError(f"this is no line of JSON: {error}", where=where) from None
        if not isinstance(line, dict) or not isinstance(line.get("answer"), str):
            raise DataError("expected an object with the text 'answer'", where=where)
        lines.append(line)
    return lines
