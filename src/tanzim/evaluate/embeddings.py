"""The evaluation of embeddings: is the right text among the nearest?

Every anchor of the test set looks for its match among all different matches and hard negatives there;
recall@k is the share of anchors whose match is one of the k nearest, MRR the mean of 1 / its rank (Voorhees
1999).

Legend: N anchors, C candidates, E numbers of an embedding.
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
from tanzim.evaluate.judge import Column, Judged
from tanzim.evaluate.measure import compare_systems, result_of, write_items
from tanzim.evaluate.report import ALL, EvalReport, SystemResult
from tanzim.evaluate.stats import mean
from tanzim.score.text import scripts

RECALL_AT = (1, 10)
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for, and where.

    Args:
        index: place of each anchor's example in the test set [N].
        anchors: the texts that look [N].
        provenance: where they came from [N].
        matches: the candidates that are right for each [N], by number.
        candidates: the different texts that are looked through [C].

    """

    index: tuple[int, ...]
    anchors: tuple[str, ...]
    provenance: tuple[Provenance, ...]
    matches: tuple[frozenset[int], ...]
    candidates: tuple[str, ...]


def seek(examples: Sequence[tuple[int, Provenance, Sequence[str]]]) -> Sought:
    """Put a test set together.

    Args:
        examples: place, provenance, and anchor, match and any hard negatives of each.

    """
    names: dict[str, int] = {}
    right: dict[str, set[int]] = {}
    for _, _, (anchor, *others) in examples:
        for text in others:
            names.setdefault(text, len(names))
        right.setdefault(anchor, set()).add(names[others[0]])
    return Sought(
        tuple(index for index, _, _ in examples),
        tuple(texts[0] for _, _, texts in examples),
        tuple(provenance for _, provenance, _ in examples),
        tuple(frozenset(right[texts[0]]) for _, _, texts in examples),
        tuple(names),
    )


def ranks(anchor_NE: Vectors, candidate_CE: Vectors, matches: Sequence[frozenset[int]]) -> list[int]:
    """Return the rank (from 1) of the nearest right candidate for each anchor; ties count against it."""
    found = []
    for anchor_E, right in zip(anchor_NE, matches, strict=True):
        near_C = candidate_CE @ anchor_E
        best = max(near_C[number] for number in right)
        wrong = np.ones(len(near_C), dtype=bool)
        wrong[list(right)] = False
        found.append(1 + int((near_C[wrong] >= best).sum()))
    return found


def evaluate_embeddings(
    sought: Sought,
    vectors: Mapping[str, tuple[Vectors, Vectors]],
    *,
    fingerprints: Mapping[str, str],
    skipped: Mapping[str, int],
    config: EvaluateConfig,
    out: Path,
    seed: int,
) -> EvalReport:
    """Measure systems on the test set; write ``report.json`` and ``items.jsonl`` into ``out``.

    Args:
        sought: the test set.
        vectors: system → embeddings of the anchors [N, E] and of the candidates [C, E].
        fingerprints: system → hash of its weights.
        skipped: why how many test examples are left out.
        config: resamples.
        out: the run's evaluation folder.
        seed: the run's seed; chooses the resamples.

    """
    groups = scripts(list(sought.anchors))
    counted = dict(Counter(groups).most_common())
    counted = counted if len(counted) > 1 else {}
    masks = {ALL: [True] * len(groups)} | {g: [group == g for group in groups] for g in counted}
    judged = {name: _judge(*pair, sought) for name, pair in vectors.items()}
    answers = {name: _nearest(*pair, sought) for name, pair in vectors.items()}
    items = [
        Item(
            index,
            Example("messages", provenance, messages=(Message("user", anchor),)),
            sought.candidates[min(right)],
            group,
        )
        for index, provenance, anchor, right, group in zip(
            sought.index, sought.provenance, sought.anchors, sought.matches, groups, strict=True
        )
    ]
    results = [SystemResult(name, fingerprints[name]) for name in vectors]
    report = EvalReport(
        items=len(items),
        examples=len(items) + sum(skipped.values()),
        skipped=dict(skipped),
        metrics=tuple(next(iter(judged.values())).columns),
        reason=f"every anchor looks for its match among {len(sought.candidates):,} texts of the test set",
        groups=counted,
        labels=(),
        systems=tuple(result_of(r, judged[r.name], answers[r.name], masks, config, seed) for r in results),
        comparisons=tuple(compare_systems(judged, masks, config, seed)),
        settings={"seed": seed, "resamples": config.resamples},
    )
    out.mkdir(parents=True, exist_ok=True)
    write_items(out / "items.jsonl", items, answers, judged, ())
    write_json(out / "report.json", report.to_json())
    return report


def _judge(anchor_NE: Vectors, candidate_CE: Vectors, sought: Sought) -> Judged:
    found = ranks(anchor_NE, candidate_CE, sought.matches)
    places = tuple(range(len(found)))
    scores = {f"recall@{k}": [float(rank <= k) for rank in found] for k in RECALL_AT}
    scores["mrr"] = [1 / rank for rank in found]
    columns = {
        name: Column(places, np.array([(value, 1.0) for value in values]), mean)
        for name, values in scores.items()
    }
    rows = [{name: values[place] for name, values in scores.items()} for place in places]
    return Judged(columns=columns, scores=list(rows))


def _nearest(anchor_NE: Vectors, candidate_CE: Vectors, sought: Sought) -> list[Answer]:
    nearest = (anchor_NE @ candidate_CE.T).argmax(1)
    return [Answer(sought.candidates[number], "stop") for number in nearest.tolist()]
