"""What the annotators of a queue agree on: numbers and what they mean, the labels, what is disputed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Literal

from tanzim.core.errors import DataError
from tanzim.core.records import Json
from tanzim.data.label.adjudicate import Method, Verdict, adjudicate
from tanzim.data.label.agreement import alpha_interval, cohen_kappa, fleiss_kappa, krippendorff_alpha
from tanzim.data.label.log import all_annotations
from tanzim.data.label.queue import Queue
from tanzim.data.label.review import annotated

# Landis and Koch 1977, "The Measurement of Observer Agreement for Categorical Data".
_KAPPA = (
    (0.0, "less than by chance"),
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (1.0, "almost perfect"),
)


def kappa_means(value: float) -> str:
    """Say what a kappa (Cohen, Fleiss) is called (Landis and Koch 1977)."""
    return next(word for most, word in _KAPPA if value <= most + 1e-9)


def alpha_means(value: float) -> str:
    """Say what an alpha allows (Krippendorff 2004, "Content Analysis", section 11.4.2)."""
    if value >= 0.8:
        return "reliable"
    return "for tentative conclusions only" if value >= 0.667 else "not reliable"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two annotators.

    Args:
        one: the one.
        two: the other.
        items: examples that both labelled.
        same: the share of those that they gave the same label.
        kappa: Cohen's; None where it cannot be told from chance.

    """

    one: str
    two: str
    items: int
    same: float
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the annotators of a queue agree.

    Args:
        items: examples that two annotators or more labelled.
        same: the share of those of which all said the same.
        alpha: Krippendorff's, over all labels; None where it cannot be told.
        interval: of alpha, 95 %, by drawing examples again.
        fleiss: Fleiss' kappa, over the examples that everybody labelled.
        everybody: how many those are.
        pairs: Cohen's kappa of each two annotators, of weighted disagreement where labels have an order.
        confused: two labels that one example got, and how often, most often first.
        notes: why a number is missing.

    """

    items: int
    same: float
    alpha: float | None
    interval: tuple[float, float] | None
    fleiss: float | None
    everybody: int
    pairs: tuple[Pair, ...]
    confused: tuple[tuple[str, str, int], ...]
    notes: tuple[str, ...]


def measure(votes: Sequence[Mapping[str, str]], labels: Sequence[str], *, ordered: bool = False) -> Agreement:
    """Measure how far annotators agree.

    Args:
        votes: annotator → label, of each example.
        labels: all labels, from low to high where they have an order.
        ordered: whether they have: a disagreement then costs more the farther apart the labels are.

    Raises:
        DataError: no example has two labels.

    """
    several = [one for one in votes if len(one) > 1]
    names = sorted({name for one in votes for name in one})
    if not several:
        raise DataError(
            f"no example has labels of two annotators; those who labelled: {', '.join(names) or 'nobody'}",
            where="agreement",
            fix="let a second person review the queue: tanzim data review QUEUE --annotator NAME",
        )
    notes: list[str] = []

    def number(what: str, measured: Callable[[], float]) -> float | None:
        try:
            return measured()
        except DataError as error:
            notes.append(f"{what}: {error.what}")
            return None

    table_AN = [[one.get(name) for one in several] for name in names]
    level: Literal["nominal", "ordinal"] = "ordinal" if ordered else "nominal"
    weights: Literal["none", "linear"] = "linear" if ordered else "none"
    alpha = number("alpha", partial(krippendorff_alpha, table_AN, level=level, order=labels))
    full = [one for one in several if len(one) == len(names)]
    fleiss = number("Fleiss' kappa", partial(fleiss_kappa, [[one[name] for one in full] for name in names]))
    pairs = []
    for one, two in combinations(names, 2):
        both = [(vote[one], vote[two]) for vote in several if one in vote and two in vote]
        if not both:
            continue
        ones, twos = map(list, zip(*both, strict=True))
        kappa = number(f"{one} and {two}", partial(cohen_kappa, ones, twos, order=labels, weights=weights))
        pairs.append(Pair(one, two, len(both), sum(a == b for a, b in both) / len(both), kappa))
    confused: Counter[tuple[str, str]] = Counter()
    for vote in several:
        confused.update(combinations(sorted(set(vote.values()), key=list(labels).index), 2))
    return Agreement(
        items=len(several),
        same=sum(len(set(one.values())) == 1 for one in several) / len(several),
        alpha=alpha,
        interval=None if alpha is None else alpha_interval(table_AN, level=level, order=labels),
        fleiss=fleiss,
        everybody=len(full),
        pairs=tuple(pairs),
        confused=tuple((*pair, count) for pair, count in confused.most_common()),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class Consensus:
    """What is decided of the tasks of a queue, [N] in their order.

    Args:
        votes: annotator → label.
        verdicts: the label of each, or none.
        disputed: the numbers of those of which annotators disagree and nothing is decided.

    """

    votes: list[dict[str, str]]
    verdicts: list[Verdict]
    disputed: list[int]


def consensus(queue: Queue, *, method: Method = "majority", least: float = 0.5, votes: int = 1) -> Consensus:
    """Decide the tasks of a queue: what a further person decided, else what the annotators' labels come to.

    Args:
        queue: the queue.
        method: majority, model (annotators weighed by how they agree) or agreed (all must say the same).
        least: the share that a label must exceed.
        votes: labels that a task must have.

    Raises:
        DataError: nobody has labelled anything, or a log is damaged.

    """
    tasks = queue.tasks
    said = annotated(tasks, all_annotations(queue))
    if not any(said):
        raise DataError(
            "nobody has labelled anything yet",
            where=str(queue.path),
            fix=f"tanzim data review {queue.path} --annotator NAME",
        )
    verdicts = adjudicate(said, method=method, least=least)
    decided = adjudicate(annotated(tasks, all_annotations(queue, "decisions")))
    found, disputed = [], []
    for number, (verdict, decision, one) in enumerate(zip(verdicts, decided, said, strict=True)):
        if decision.label is not None:
            share = list(one.values()).count(decision.label) / max(1, len(one))
            by = ", ".join(sorted(decision.votes))
            found.append(Verdict(decision.label, share, one, decided_by=by))
            continue
        kept = verdict if len(one) >= votes else replace(verdict, label=None)
        if kept.label is None and len(set(one.values())) > 1:
            disputed.append(number)
        found.append(kept)
    return Consensus(said, found, disputed)


def shown(agreement: Agreement) -> Json:
    """Return the numbers as plain JSON values, rounded."""
    return {
        "items": agreement.items,
        "same": round(agreement.same, 4),
        "krippendorff_alpha": _round(agreement.alpha),
        "alpha_95": None if agreement.interval is None else [_round(one) for one in agreement.interval],
        "fleiss_kappa": _round(agreement.fleiss),
        "cohen_kappa": {f"{one.one}, {one.two}": _round(one.kappa) for one in agreement.pairs},
        "confused": [list(one) for one in agreement.confused],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
