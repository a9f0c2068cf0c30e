"""Bad habits a combined adapter takes over: answers that are much shorter than the task needs.

A translator answers in few words. Combined with a chat adapter it may make the chat stop after one sentence
(guide 6.3.5). Lengths are in characters, which mean the same in every language of one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tanzim.core.records import Json
from tanzim.evaluate.stats import FEWEST_ITEMS, Estimate, Floats, interval

# Shorter than this share, even at the upper end of the interval, is "much shorter".
MUCH = 0.8
_RESAMPLES, _SEED = 1000, 13


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long answers to one task are, in characters per item.

    Args:
        references: of the right answers.
        systems: of each system's answers: base, tuned (the task's own adapter), and every combination.

    """

    references: tuple[int, ...]
    systems: Mapping[str, tuple[int, ...]]

    def mean(self, system: str | None = None) -> float:
        """Return the mean length of a system's answers, or of the references."""
        values = self.references if system is None else self.systems[system]
        return sum(values) / max(len(values), 1)


@dataclass(frozen=True, slots=True)
class ShortAnswers:
    """A combination whose answers to a task are too short.

    Args:
        task: the task.
        system: the combination.
        to_own: its total length as a share of that of the task's own adapter's answers.
        to_references: the same of the right answers.
        text: what is wrong, in words.

    """

    task: str
    system: str
    to_own: Estimate
    to_references: Estimate
    text: str


def lengths(items: Sequence[Json]) -> Lengths:
    """Measure the answers in an evaluation's ``items.jsonl``."""
    names = list(items[0]["systems"]) if items else []
    return Lengths(
        tuple(len(item["reference"].strip()) for item in items),
        {name: tuple(len(item["systems"][name]["answer"].strip()) for item in items) for name in names},
    )


def find_short(tasks: Mapping[str, Lengths], combinations: Sequence[str], *, own: str) -> list[ShortAnswers]:
    """Find the combinations that answer a task much shorter than the task's own adapter, or the references.

    Args:
        tasks: task → lengths of all systems' answers to it.
        combinations: the systems to look at.
        own: how the task's own adapter is called among the systems.

    """
    found = []
    for task, measured in tasks.items():
        if not measured.references:
            continue
        usual = _share(measured.systems[own], measured.references)
        for name in combinations:
            to_own = _share(measured.systems[name], measured.systems[own])
            to_references = _share(measured.systems[name], measured.references)
            # A task whose own adapter is as short has no habit taken over from another.
            if to_own.high < MUCH or (to_references.high < MUCH and usual.high >= MUCH):
                text = _words(task, name, measured, to_own, to_references, _donor(tasks, task, own))
                found.append(ShortAnswers(task, name, to_own, to_references, text))
    return found


def _share(lengths_N: Sequence[int], others_N: Sequence[int]) -> Estimate:
    """Return Σ lengths / Σ others with its bootstrap interval."""
    rows_N2 = np.array([lengths_N, others_N], dtype=np.float64).T
    return interval(rows_N2, _ratio, resamples=_RESAMPLES, seed=_SEED)


def _ratio(sums_R2: Floats) -> Floats:
    share: Floats = sums_R2[:, 0] / np.maximum(sums_R2[:, 1], 1)
    return share


def _donor(tasks: Mapping[str, Lengths], task: str, own: str) -> str | None:
    """Name the other task whose own adapter answers shortest, if that is much shorter than here."""
    others = {other: measured.mean(own) for other, measured in tasks.items() if other != task}
    if not others:
        return None
    shortest = min(others, key=lambda other: others[other])
    return shortest if others[shortest] < tasks[task].mean(own) * MUCH else None


def _words(
    task: str, name: str, measured: Lengths, to_own: Estimate, to_references: Estimate, donor: str | None
) -> str:
    text = (
        f"short answers: on '{task}', '{name}' writes {measured.mean(name):.0f} characters per answer: "
        f"{100 * to_own.value:.0f} % of what the task's own adapter writes "
        f"[{100 * to_own.low:.0f}, {100 * to_own.high:.0f}], {100 * to_references.value:.0f} % of the right "
        f"answers [{100 * to_references.low:.0f}, {100 * to_references.high:.0f}]"
    )
    if to_own.items < FEWEST_ITEMS:
        text += f"; only {to_own.items} items, so this may be chance"
    if donor is not None:
        text += f"; perhaps taken over from '{donor}', whose answers are short: give it less weight"
    return text
