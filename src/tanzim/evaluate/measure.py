"""The evaluation: the same items to every system, scores, intervals, and what changed.

It leaves out: benchmarks, judges and safety (other issues), and sampling (answers are greedy).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tanzim.core.errors import ConfigError
from tanzim.core.files import sha256, write_json, write_text
from tanzim.core.records import Example, Json, Progress, no_progress
from tanzim.core.seeds import derive
from tanzim.evaluate.answers import Answer, AnswerLog, System, generate_answers, label_ids, score_labels
from tanzim.evaluate.config import EvaluateConfig
from tanzim.evaluate.items import MOST_LABELS, Item, choose_metrics, find_labels, read_answers, select_items
from tanzim.evaluate.judge import Judged, judge, order
from tanzim.evaluate.report import ALL, BASE, TUNED, Comparison, EvalReport, SystemResult
from tanzim.evaluate.stats import Estimate, difference, interval, verdict
from tanzim.score.metrics import fits

if TYPE_CHECKING:
    from tanzim.models.speaker import Speaker


def evaluate(  # noqa: PLR0913 - an evaluation's inputs, each of which is used once
    examples: Sequence[Example],
    systems: Sequence[System],
    *,
    renderer: Speaker,
    config: EvaluateConfig,
    out: Path,
    seed: int,
    labels: Sequence[str] = (),
    group: Callable[[Example], str] | None = None,
    progress: Progress = no_progress,
) -> EvalReport:
    """Measure every system on the same test items; write ``report.json`` and ``items.jsonl`` into ``out``.

    An interrupted evaluation continues: answers are kept in ``answers.jsonl`` as they come.

    Args:
        examples: the test set, as conversations (raw text counts towards the loss alone).
        systems: models in the order of the table; the one named "tuned" is compared with the rest.
        renderer: makes the prompts, as it made those of the training.
        config: metrics, number of items, other systems' answers.
        out: the run's evaluation folder.
        seed: the run's seed; chooses the items and the resamples.
        labels: the labels the data declares.
        group: what the items are told apart by in the table; None: the script of the question.
        progress: called as answers come in.

    Raises:
        ConfigError: a metric in the config fits none of the right answers.
        DataError: another system's file of answers does not fit the test set.

    """
    items, skipped = select_items(examples, most=config.max_items, seed=seed)
    items = items if group is None else [replace(item, group=group(item.example)) for item in items]
    asked = [system for system in systems if config.base or system.name != BASE]
    items, too_long = _within_context(items, asked, renderer)
    skipped |= {"the question alone fills the model's context": too_long} if too_long else {}
    chosen, known, reason = _metrics(items, config, labels)
    answers = _ask(asked, items, renderer, config, known, AnswerLog(out / "answers.jsonl"), progress)
    answers |= _others(items, examples, config, taken=answers)
    judged = {name: judge(items, given, chosen, known) for name, given in answers.items()}
    results = [_losses(SystemResult(system.name, system.fingerprint), system) for system in asked]
    results += [SystemResult(name, sha256(Path(path))) for name, path in config.others.items()]
    groups = dict(Counter(item.group for item in items).most_common())
    groups = groups if len(groups) > 1 else {}
    masks = {ALL: [True] * len(items)} | {g: [item.group == g for item in items] for g in groups}
    report = EvalReport(
        items=len(items),
        examples=len(examples),
        skipped=skipped,
        metrics=order({name: column for one in judged.values() for name, column in one.columns.items()}),
        reason=reason,
        groups=groups,
        labels=known,
        systems=tuple(
            result_of(one, judged[one.name], answers[one.name], masks, config, seed) for one in results
        ),
        comparisons=tuple(compare_systems(judged, masks, config, seed)),
        settings={"seed": seed, "max_new_tokens": config.max_new_tokens, "resamples": config.resamples},
    )
    write_items(out / "items.jsonl", items, answers, judged, known)
    write_json(out / "report.json", report.to_json())
    return report


def _within_context(
    items: Sequence[Item], systems: Sequence[System], renderer: Speaker
) -> tuple[list[Item], int]:
    """Keep the items whose prompts leave room for an answer in every model; count the others."""
    room = min((s.engine.context_length for s in systems if s.engine.context_length), default=None)
    kept = [item for item in items if room is None or len(_prompt(renderer, item)) < room]
    return kept, len(items) - len(kept)


def _prompt(renderer: Speaker, item: Item) -> list[int]:
    return renderer.prompt(item.example.messages, item.example.tools)


def _metrics(
    items: Sequence[Item], config: EvaluateConfig, declared: Sequence[str]
) -> tuple[list[str], tuple[str, ...], str]:
    """Return the metrics, the closed set of labels (if they need one), and why these."""
    references = [item.reference for item in items]
    labels = find_labels(references, declared)
    chosen, reason = choose_metrics(references, labels)
    if config.metrics != "auto":
        chosen, reason = list(config.metrics) if items else [], "set in evaluate.metrics"
    for metric in chosen:
        if not any(fits(metric, reference) for reference in references):
            raise ConfigError(
                f"the metric '{metric}' fits none of the {len(items)} right answers",
                where="evaluate.metrics",
                fix="leave it out, or set evaluate.metrics=auto",
            )
    if not {"accuracy", "macro_f1"} & set(chosen):
        return chosen, (), reason
    return chosen, labels or tuple(sorted({reference.strip() for reference in references})), reason


def _others(
    items: Sequence[Item], examples: Sequence[Example], config: EvaluateConfig, taken: Container[str]
) -> dict[str, list[Answer]]:
    """Read the answers of other systems to the items."""
    answers = {}
    for name, path in config.others.items():
        if name in taken:
            raise ConfigError(f"'{name}' is the name of a model that is measured", where="evaluate.others")
        theirs = read_answers(name, Path(path), examples)
        answers[name] = [Answer(theirs[item.index]) for item in items]
    return answers


def _ask(
    systems: Sequence[System],
    items: Sequence[Item],
    renderer: Speaker,
    config: EvaluateConfig,
    labels: Sequence[str],
    log: AnswerLog,
    progress: Progress,
) -> dict[str, list[Answer]]:
    """Return every system's answers, with the labels' log-probabilities where there are few labels."""
    prompts = [_prompt(renderer, item) for item in items]
    choices: list[list[list[int]]] = []
    if 2 <= len(labels) <= MOST_LABELS:
        choices = [
            [label_ids(renderer, item, prompt, label) for label in labels]
            for item, prompt in zip(items, prompts, strict=True)
        ]
    answers = {}
    for system in systems:
        given = generate_answers(
            system,
            prompts,
            system.adapters(items),
            log=log,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            progress=progress,
        )
        if choices:
            scored = score_labels(
                system,
                prompts,
                system.adapters(items),
                choices,
                log=log,
                batch_size=config.batch_size,
                progress=progress,
            )
            given = [replace(one, label_logprobs=s) for one, s in zip(given, scored, strict=True)]
        answers[system.name] = given
    return answers


def _losses(result: SystemResult, system: System) -> SystemResult:
    if system.heldout_loss is None:
        return result
    total, tokens = system.heldout_loss(system.adapter)
    if not tokens:
        return result
    loss = total / tokens
    perplexity = math.exp(loss) if loss < 700 else None  # the largest double is about exp(709)
    return replace(result, loss=loss, perplexity=perplexity, tokens=tokens)


def result_of(
    result: SystemResult,
    judged: Judged,
    answers: Sequence[Answer],
    masks: Mapping[str, Sequence[bool]],
    config: EvaluateConfig,
    seed: int,
) -> SystemResult:
    """Put the estimates of every metric and script group into a system's result."""
    metrics: dict[str, dict[str, Estimate]] = {}
    for name, column in judged.columns.items():
        for group, mask in masks.items():
            part = column.only(mask)
            if part.items:
                metrics.setdefault(name, {})[group] = interval(
                    part.rows, part.value, resamples=config.resamples, seed=derive(seed, "bootstrap", group)
                )
    return replace(
        result,
        metrics=metrics,
        labels=judged.labels,
        cut_off=sum(answer.finish_reason == "length" for answer in answers),
        unread=judged.unread,
    )


def compare_systems(
    judged: Mapping[str, Judged], masks: Mapping[str, Sequence[bool]], config: EvaluateConfig, seed: int
) -> Iterator[Comparison]:
    """Compare the tuned model with every other system, per metric and script group."""
    if TUNED not in judged:
        return
    for other in (name for name in judged if name != TUNED):
        for name, theirs in judged[other].columns.items():
            for group, mask in masks.items() if name in judged[TUNED].columns else ():
                left, right = judged[TUNED].columns[name].only(mask), theirs.only(mask)
                # Whether a metric fits an item depends on its reference alone.
                assert left.items == right.items
                if left.items:
                    draw = derive(seed, "bootstrap", group)
                    change = difference(
                        left.rows, right.rows, left.value, resamples=config.resamples, seed=draw
                    )
                    yield Comparison(TUNED, other, name, group, change, verdict(change))


def write_items(
    path: Path,
    items: Sequence[Item],
    answers: Mapping[str, Sequence[Answer]],
    judged: Mapping[str, Judged],
    labels: Sequence[str],
) -> None:
    """Write one line per item: question, reference, and every system's answer with its scores."""
    lines = []
    for place, item in enumerate(items):
        example = item.example.to_json()
        line: Json = {
            "index": item.index,
            "provenance": example["provenance"],
            "group": item.group,
            "messages": example["messages"],
            "reference": item.reference,
            "systems": {},
        }
        for name, given in answers.items():
            answer = given[place]
            entry: Json = {"answer": answer.text, "finish_reason": answer.finish_reason}
            if answer.label_logprobs:
                entry["label_logprobs"] = dict(zip(labels, answer.label_logprobs, strict=True))
            line["systems"][name] = {**entry, "scores": judged[name].scores[place]}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
