"""The evaluation of models that label: the head's choice beside always saying the most frequent label.

The base is not measured: its head was drawn at random and has learnt nothing. What is compared is a
system that looks at no text, which says every text (or word) the most frequent label of the training set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.files import write_json
from tanzim.core.records import Example, Message, Provenance
from tanzim.evaluate.answers import Answer
from tanzim.evaluate.config import EvaluateConfig
from tanzim.evaluate.items import Item
from tanzim.evaluate.judge import Column, Judged, judge_labels, label_table
from tanzim.evaluate.measure import compare_systems, result_of, write_items
from tanzim.evaluate.report import ALL, MAJORITY, TUNED, EvalReport, LabelScore, SystemResult
from tanzim.evaluate.stats import Floats, average_precision, f1, label_scores, mean
from tanzim.score.entities import are_entities, entities
from tanzim.score.text import scripts

SHOWN = "{}/{}"  # how a word and its tag stand in the items


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """A held-out text, what is right about it, and what the head said.

    Args:
        index: place in the test set, from 0.
        text: the text, or the words with spaces between them.
        words: the words, where each has a label; else ().
        provenance: where the example came from.
        right: the right label, or one for each word.
        logits: what the head said of them, [labels or fewer words, C]; words that were cut off have none.

    """

    index: int
    text: str
    words: tuple[str, ...]
    provenance: Provenance
    right: tuple[str, ...]
    logits: npt.NDArray[np.float32]


def evaluate_heads(
    found: Sequence[LabelledItem],
    *,
    labels: Sequence[str],
    counts: Mapping[str, int],
    skipped: Mapping[str, int],
    fingerprint: str,
    config: EvaluateConfig,
    out: Path,
    seed: int,
) -> EvalReport:
    """Measure a head on the test set; write ``report.json`` and ``items.jsonl`` into ``out``.

    Args:
        found: what is to be judged.
        labels: the classes, in the order of the head's outputs.
        counts: how often each label stands in the training set.
        skipped: why how many test examples are not in ``found``.
        fingerprint: hash of base weights and what was trained.
        config: resamples.
        out: the run's evaluation folder.
        seed: the run's seed; chooses the resamples.

    """
    usual = max(labels, key=lambda label: counts.get(label, 0))
    said = {
        MAJORITY: [(usual,) * len(item.right) for item in found],
        TUNED: [_said(item, labels, usual) for item in found],
    }
    tagged = any(item.words for item in found)
    if tagged:
        judged = {name: _judge_words(found, given, labels) for name, given in said.items()}
    else:
        chances = {TUNED: _chances(found, len(labels)), MAJORITY: np.zeros((len(found), len(labels)))}
        judged = {name: _judge_texts(found, given, labels, chances[name]) for name, given in said.items()}
    groups = scripts([item.text for item in found])
    items = [_item(item, group) for item, group in zip(found, groups, strict=True)]
    counted = dict(Counter(groups).most_common())
    counted = counted if len(counted) > 1 else {}
    masks = {ALL: [True] * len(items)} | {g: [group == g for group in groups] for g in counted}
    answers = {
        name: [Answer(_shown(item.words, given), "stop") for item, given in zip(found, lists, strict=True)]
        for name, lists in said.items()
    }
    loss, count = _loss(found, labels)
    results = [SystemResult(MAJORITY, usual), SystemResult(TUNED, fingerprint, loss, tokens=count)]
    named = tuple(judged[TUNED].labels)
    report = EvalReport(
        items=len(items),
        examples=len(items) + sum(skipped.values()),
        skipped=dict(skipped),
        metrics=tuple(judged[TUNED].columns),
        reason=_reason(found, usual, tagged),
        groups=counted,
        labels=named,
        systems=tuple(result_of(r, judged[r.name], answers[r.name], masks, config, seed) for r in results),
        comparisons=tuple(compare_systems(judged, masks, config, seed)),
        settings={"seed": seed, "resamples": config.resamples},
    )
    out.mkdir(parents=True, exist_ok=True)
    write_items(out / "items.jsonl", items, answers, judged, ())
    write_json(out / "report.json", report.to_json())
    return report


def _said(item: LabelledItem, labels: Sequence[str], usual: str) -> tuple[str, ...]:
    """Return the likeliest labels; words that were cut off get the usual one, as nothing was said of them."""
    chosen = [labels[number] for number in item.logits.argmax(-1).tolist()]
    return (*chosen, *[usual] * (len(item.right) - len(chosen)))


def _item(found: LabelledItem, group: str) -> Item:
    question = Example("messages", found.provenance, messages=(Message("user", found.text),))
    return Item(found.index, question, _shown(found.words, found.right), group)


def _shown(words: Sequence[str], labels: Sequence[str]) -> str:
    """Write labels for people: the label of a text, or what words were tagged as something."""
    if not words:
        return labels[0]
    named = [SHOWN.format(w, label) for w, label in zip(words, labels, strict=True) if label != "O"]
    return " ".join(named) or "O"


def _reason(found: Sequence[LabelledItem], usual: str, tagged: bool) -> str:
    cut = sum(len(item.right) - len(item.logits) for item in found)
    what = "every word" if tagged else "every text"
    text = (
        f"{what} has one label; the base is not measured, since its head was drawn at random; "
        f"'{MAJORITY}' says '{usual}' whatever it is asked"
    )
    return text + (f"; {cut:,} words beyond model.max_length count as '{usual}'" if cut else "")


def _loss(found: Sequence[LabelledItem], labels: Sequence[str]) -> tuple[float | None, int]:
    """Return the mean of −log p of the right labels, and how many there are."""
    numbers = {label: number for number, label in enumerate(labels)}
    total, count = 0.0, 0
    for item in found:
        logits = item.logits.astype(np.float64)
        peak = logits.max(-1)
        norm = peak + np.log(np.exp(logits - peak[:, None]).sum(-1))
        right = [numbers[label] for label in item.right[: len(logits)]]
        total += float((norm - logits[np.arange(len(right)), right]).sum())
        count += len(right)
    return (total / count if count else None), count


def _chances(found: Sequence[LabelledItem], labels: int) -> Floats:
    """Return the probability of each text's labels, [N, C]."""
    logits = np.array([item.logits[0] for item in found], np.float64).reshape(-1, labels)
    powers = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _judge_texts(
    found: Sequence[LabelledItem],
    given: Sequence[tuple[str, ...]],
    labels: Sequence[str],
    chances_NC: Floats,
) -> Judged:
    """Score labels; what looks at no text is as sure of each text as of any other."""
    read, right = [one[0] for one in given], [item.right[0] for item in found]
    judged = Judged(scores=[{} for _ in found], labels=label_table(read, right, labels))
    judge_labels("", read, right, labels, ("macro_f1", "accuracy"), judged)
    rows = label_scores(chances_NC, right, labels)
    curve = Column(tuple(range(len(found))), rows, average_precision)
    judged.columns = {
        "macro_f1": judged.columns["macro_f1"],
        "accuracy": judged.columns["accuracy"],
        "average_precision": curve,
    }
    return judged


def _judge_words(
    found: Sequence[LabelledItem], given: Sequence[tuple[str, ...]], labels: Sequence[str]
) -> Judged:
    """Score tags: entities found whole where the tags are of entities, and the share of right words."""
    judged = Judged(scores=[{} for _ in found])
    places = tuple(range(len(found)))
    hits = [sum(a == b for a, b in zip(g, i.right, strict=True)) for g, i in zip(given, found, strict=True)]
    rows: Floats = np.array([(h, len(i.right)) for h, i in zip(hits, found, strict=True)], np.float64)
    if are_entities(labels):
        pairs = [
            (set(entities(one)), set(entities(item.right))) for one, item in zip(given, found, strict=True)
        ]
        sums: Floats = np.array([(len(a & b), len(a), len(b)) for a, b in pairs], np.float64)
        judged.columns["entity_f1"] = Column(places, sums.reshape(-1, 3), f1)
        judged.labels = _by_type(pairs)
        for score, (a, b) in zip(judged.scores, pairs, strict=True):
            score["entity_f1"] = 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
    else:
        read, right = [t for one in given for t in one], [t for item in found for t in item.right]
        judged.labels = label_table(read, right, labels)
    judged.columns["accuracy"] = Column(places, rows.reshape(-1, 2), mean)
    for score, (hit, words) in zip(judged.scores, rows.tolist(), strict=True):
        score["accuracy"] = hit / words
    return judged


def _by_type(
    pairs: Sequence[tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]],
) -> dict[str, LabelScore]:
    """Return precision, recall, F1 and support of each type of entity."""
    hits = Counter(kind for said_, true_ in pairs for kind, _, _ in said_ & true_)
    said = Counter(kind for found, _ in pairs for kind, _, _ in found)
    true = Counter(kind for _, right in pairs for kind, _, _ in right)
    return {
        kind: LabelScore(
            hits[kind] / max(said[kind], 1),
            hits[kind] / max(true[kind], 1),
            2 * hits[kind] / max(said[kind] + true[kind], 1),
            true[kind],
        )
        for kind in sorted(said.keys() | true.keys())
    }
