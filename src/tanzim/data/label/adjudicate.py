"""One label out of those of several annotators, or none and a place in the review queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tanzim.core.errors import DataError
from tanzim.data.label.model import MISSING, fit

Method = Literal["majority", "weighted", "model", "agreed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one item.

    Args:
        label: the label; None sends it to review.
        share: how much of the votes, or which probability, stands behind the likeliest label.
        votes: who said what.
        decided_by: who decided where they disagree; empty where their votes did.

    """

    label: str | None
    share: float
    votes: Mapping[str, str]
    decided_by: str = ""


def adjudicate(
    items: Sequence[Mapping[str, str]],
    *,
    method: Method = "majority",
    weights: Mapping[str, float] | None = None,
    least: float = 0.5,
) -> list[Verdict]:
    """Decide each item.

    Args:
        items: N items: annotator → label, those who labelled it only.
        method: majority counts heads; weighted counts each annotator by a weight; model weighs them by how
            they agree with the others (Dawid and Skene 1979); agreed takes what all say, else review.
        weights: of each annotator, for weighted.
        least: the share that a label must exceed (majority, weighted, model); a tie never does.

    Raises:
        DataError: weights are missing or not positive.

    """
    if method == "model":
        return _by_model(items, least)
    if method == "weighted":
        named = {name for votes in items for name in votes}
        if weights is None or (unknown := named - set(weights)) or min(weights.values(), default=1) <= 0:
            lacking = ", ".join(sorted(named if weights is None else unknown)) or "one of 0 or less"
            raise DataError(
                f"weighted needs a weight above 0 of every annotator: {lacking}", where="adjudication"
            )
    counted = weights if method == "weighted" and weights is not None else {}
    verdicts = []
    for votes in items:
        heads: dict[str, float] = {}
        for name, label in sorted(votes.items()):
            heads[label] = heads.get(label, 0) + counted.get(name, 1)
        ranked = sorted(heads.items(), key=lambda one: (-one[1], one[0]))
        share = ranked[0][1] / sum(heads.values()) if ranked else 0.0
        tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
        agreed = len(ranked) == 1 if method == "agreed" else bool(ranked) and share > least and not tied
        verdicts.append(Verdict(ranked[0][0] if agreed else None, float(share), dict(votes)))
    return verdicts


def _by_model(items: Sequence[Mapping[str, str]], least: float) -> list[Verdict]:
    names = sorted({name for votes in items for name in votes})
    labels = sorted({label for votes in items for label in votes.values()})
    codes = {label: code for code, label in enumerate(labels)}
    votes_NJ = np.array(
        [[codes[votes[name]] if name in votes else MISSING for name in names] for votes in items], np.int64
    ).reshape(len(items), len(names))
    shares_NC = fit(votes_NJ, len(labels))(votes_NJ)
    verdicts = []
    for votes, row in zip(items, shares_NC, strict=True):
        best = int(row.argmax())
        sure = bool(votes) and row[best] > least and (row == row[best]).sum() == 1
        verdicts.append(Verdict(labels[best] if sure else None, float(row[best]), dict(votes)))
    return verdicts
