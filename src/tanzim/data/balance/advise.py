"""How uneven the classes are, in numbers, and what is worth doing about it (guide 3.1.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Json
from tanzim.data.balance.counts import (
    Counts,
    blind_scores,
    chance_of_none,
    class_weights,
    effective_number,
    evenness,
    ordered,
)

UNEVEN = 1.5  # times as common as the rarest class: from here on something is recommended
RARE = 4.0  # from here on rare classes are given up where nothing is done
_OFTEN_NONE = 0.05  # of the steps without an example of the rarest class: batches are to be balanced
_TOO_MANY_COPIES = 10  # a text that stands more often is learnt by heart
_ENOUGH = 1000  # examples of the rarest class from which on the others can be cut down to it
_MANY = 2000  # examples in all from which on a part of them may do
_FEW_TO_JUDGE = 50  # examples of a class below which a surrogate knows too little of it
_CHARACTERS = 4  # of a token, about
# bench/data_select.py: the macro-F1 that a fifth of the examples teaches two small models, by that of all.
_CHOSEN, _BY_CHANCE = 0.96, 0.89


@dataclass(frozen=True, slots=True)
class Advice:
    """One technique, and why.

    Args:
        technique: as the guide calls it.
        setting: keys of the config and their values, as YAML would have them.
        why: with the numbers.
        fits: "head" where a head of labels is trained, "words" where the label is an answer in words,
            "both", or "report" where nothing is trained.
        first: whether it is the one to begin with, for what it fits.

    """

    technique: str
    setting: str
    why: str
    fits: str
    first: bool = False


@dataclass(frozen=True, slots=True)
class Balance:
    """What uneven classes mean.

    Args:
        ratio: the most common class to the rarest.
        evenness: entropy of the classes by its maximum; 1 where all are equally common.
        weights: of each class, by which all count alike.
        effective: effective number of examples of each class.
        per_step: expected examples of the rarest class in a step.
        steps_without: share of the steps that have none of it.
        blind_accuracy: accuracy of always saying the most common class.
        blind_macro_f1: macro-F1 of the same.
        advice: what to do, the best first; empty where the classes are even.

    """

    ratio: float
    evenness: float
    weights: dict[str, float]
    effective: dict[str, float]
    per_step: float
    steps_without: float
    blind_accuracy: float
    blind_macro_f1: float
    advice: list[Advice] = field(default_factory=list)

    def to_json(self) -> Json:
        """Return it as plain JSON values."""
        return asdict(self)


def weigh(counts: Mapping[str, int], *, characters: float, tokens_per_step: int) -> Balance | None:
    """Say how uneven classes are and what is worth doing; None if there are no two classes.

    Args:
        counts: examples of each class.
        characters: of an example, on average.
        tokens_per_step: tokens of an optimiser step (``train.tokens_per_step``).

    """
    found = {name: count for name, count in counts.items() if count > 0}
    if len(found) < 2:
        return None
    names, numbers = ordered(found)
    batch = max(1.0, tokens_per_step / max(1.0, characters / _CHARACTERS))
    share = float(numbers[-1] / numbers.sum())
    accuracy, macro_f1 = blind_scores(numbers)
    balance = Balance(
        ratio=round(float(numbers[0] / numbers[-1]), 2),
        evenness=round(evenness(numbers), 4),
        weights=_named(names, class_weights(numbers), 4),
        effective=_named(names, effective_number(numbers), 1),
        per_step=round(batch * share, 2),
        steps_without=round(chance_of_none(share, batch), 4),
        blind_accuracy=round(accuracy, 4),
        blind_macro_f1=round(macro_f1, 4),
    )
    if balance.ratio < UNEVEN:
        return balance
    balance.advice.extend(_advice(balance, names, numbers))
    return balance


def _named(names: list[str], values: npt.NDArray[np.float64], places: int) -> dict[str, float]:
    return {name: round(value, places) for name, value in zip(names, values.tolist(), strict=True)}


def _advice(balance: Balance, names: list[str], counts: Counts) -> list[Advice]:
    most, least, fewest = names[0], names[-1], int(counts[-1])
    rare = balance.ratio >= RARE
    batches = rare and balance.steps_without >= _OFTEN_NONE
    measures = Advice(
        "measures that rare classes count in",
        "evaluate.metrics: [macro_f1, accuracy]",
        f"always answering '{most}' has accuracy {balance.blind_accuracy:.2f}, "
        f"but macro-F1 {balance.blind_macro_f1:.2f}",
        "report",
    )
    weights = Advice(
        "class weights",
        "train.objective.class_weights: balanced",
        f"an example of '{least}' then counts {balance.weights[least]:.3g}, of '{most}' "
        f"{balance.weights[most]:.3g}: both classes weigh the same in the loss",
        "head",
        first=not batches,
    )
    stratified = Advice(
        "class-stratified mini-batches",
        "train.balanced_batches: true",
        f"a step holds {balance.per_step:.3g} examples of '{least}' on average, and "
        f"{balance.steps_without:.0%} of the steps none; instead of class weights, not with them",
        "head",
        first=batches,
    )
    focal = Advice(
        "focal loss",
        "train.objective.loss: {type: focal, gamma: 2}",
        f"easy examples, most of them '{most}', count less; try it beside class weights",
        "head",
    )
    costly = json.dumps({least: {most: balance.ratio}}, ensure_ascii=False)
    costs = Advice(
        "cost-sensitive loss",
        f"train.objective.loss: {{type: cost, costs: {costly}}}",
        f"where missing '{least}' is dearer than the reverse; put in what it costs",
        "head",
    )
    return [
        measures,
        *((weights, stratified) if not batches else (stratified, weights)),
        _sampling(balance, most, least, fewest),
        *([focal] if rare else []),
        *([costs] if rare else []),
        *_cleaning(least, fewest),
        *_fewer(int(counts.sum())),
    ]


def _sampling(balance: Balance, most: str, least: str, fewest: int) -> Advice:
    if fewest >= _ENOUGH:
        return Advice(
            "under-sampling",
            "data.steps: [{type: undersample}]",
            f"'{least}' alone has {fewest:,} examples: cutting '{most}' down to it saves time, loses little",
            "words",
            first=True,
        )
    copies = min(float(_TOO_MANY_COPIES), balance.ratio)
    more = "" if copies == balance.ratio else f", not {balance.ratio:.3g}: it would be learnt by heart"
    return Advice(
        "over-sampling",
        "data.steps: [{type: oversample}]",
        f"an example of '{least}' then stands {copies:.3g} times{more}; "
        "type: smote with text: write asks a language model for new ones instead",
        "words",
        first=True,
    )


def _cleaning(least: str, fewest: int) -> list[Advice]:
    if fewest < _FEW_TO_JUDGE:
        return []
    return [
        Advice(
            "noisy labels",
            "data.steps: [{type: label_noise, action: mark}]",
            f"a wrong label among the {fewest:,} of '{least}' weighs more than elsewhere; put it before "
            "steps that repeat examples",
            "both",
        )
    ]


def _fewer(total: int) -> list[Advice]:
    if total < _MANY:
        return []
    return [
        Advice(
            "data-efficient tuning",
            "data.steps: [{type: select, share: 0.2}]",
            f"where {total:,} examples take too long: a fifth so chosen taught {_CHOSEN:.0%} of the macro-F1 "
            f"that all taught, a fifth by chance {_BY_CHANCE:.0%} (bench/data_select.py); see the report",
            "both",
        )
    ]
