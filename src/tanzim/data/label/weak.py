"""Labels from labelling functions, in memory and as a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.records import Example, Json, Progress
from tanzim.data.label.config import WeakLabelsConfig
from tanzim.data.label.functions import LabellingFunction, rule, votes
from tanzim.data.label.model import LabelModel, Shares, Votes, fit, majority
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

Patterns = Counter[tuple[int, ...]]
# Rules do not err independently: long texts hit more of them, synonyms go together. Each further round of EM
# fits that instead of the label: on Persian comments macro-F1 is 0.80 after one round from the majority's
# votes on, 0.73 after all of them, and 0.79 of the votes alone (bench/data_label.py).
_ROUNDS = 1


@dataclass(frozen=True, slots=True)
class WeakLabels:
    """What labelling functions make of N texts.

    Args:
        labels: the likeliest label of each text; None where no function spoke.
        shares_NC: the probability of each label.
        votes_NJ: what each function said, the number of a label or C.
        model: how far each function is trusted.

    """

    labels: list[str | None]
    shares_NC: Shares
    votes_NJ: Votes
    model: LabelModel


def weak_labels(
    texts: Sequence[str],
    functions: Sequence[LabellingFunction],
    labels: Sequence[str],
    *,
    shares: Mapping[str, float] | None = None,
) -> WeakLabels:
    """Label texts by functions of yours.

    Args:
        texts: N texts.
        functions: J functions from a text to a label, or None.
        labels: C labels they may say.
        shares: how common each label is among texts that a function speaks of, where that is known.

    Raises:
        DataError: no function says anything, one says no label, or shares names other labels.

    """
    if shares is not None and set(shares) != set(labels):
        raise DataError(
            f"shares names {sorted(shares)}, the labels are {sorted(labels)}", where="weak labels"
        )
    votes_NJ = votes(texts, functions, labels)
    said: Patterns = Counter(tuple(row) for row in votes_NJ.tolist())
    model = learn(said, len(labels), [shares[label] for label in labels] if shares else None)
    shares_NC = model(votes_NJ)
    spoken: list[bool] = np.asarray((votes_NJ < len(labels)).any(1)).tolist()
    best = shares_NC.argmax(1)
    found = [labels[code] if any_ else None for code, any_ in zip(best, spoken, strict=True)]
    return WeakLabels(found, shares_NC, votes_NJ, model)


def learn(said: Patterns, classes: int, shares: Sequence[float] | None = None) -> LabelModel:
    """Fit the label model to how often each combination of votes was seen, in one round.

    Raises:
        DataError: no function says anything of any text.

    """
    # Of what no function speaks nothing is learnt: there being much of it, it would make a class of its own.
    rows = sorted(row for row in said if min(row) < classes)
    if not rows:
        raise DataError(
            f"no labelling function speaks of any of the {sum(said.values()):,} texts",
            where="weak labels",
            fix="look at some texts, and name keywords that stand in them",
        )
    votes_PJ = np.array(rows, np.int64)
    counts = np.array([said[row] for row in rows], np.float64)
    fixed = None if shares is None else np.array(shares) / sum(shares)
    return fit(votes_PJ, classes, abstains=True, counts=counts, shares=fixed, rounds=_ROUNDS)


class WeakLabelling(WholeStep[WeakLabelsConfig]):
    """Give raw texts a label by labelling functions, with its probability and the votes in about.weak_label.

    Raw texts become labelled ones. Texts that have a label keep it, and the report says how often the
    functions would have hit it, beside a majority vote; the model does not see it. Conversations, pairs and
    tagged words stay as they are.
    """

    version = 2

    @cached_property
    def labels(self) -> list[str]:
        """The labels that the functions say, sorted."""
        return sorted({one.label for one in self.config.functions})

    @cached_property
    def _functions(self) -> list[LabellingFunction]:
        return [rule(one) for one in self.config.functions]

    @cached_property
    def _names(self) -> list[str]:
        given = self.config.functions
        return [one.name or f"{one.label} {number}" for number, one in enumerate(given, 1)]

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Count the combinations of votes of a shard, and those of texts with each label."""
        said: Patterns = Counter()
        known: dict[str, Patterns] = {}
        for example in examples:
            if example.kind == "text":
                said[self._votes(example)] += 1
            elif example.kind == "labelled" and example.label in self.labels:
                known.setdefault(example.label, Counter())[self._votes(example)] += 1
        write_json(
            path,
            {
                "said": list(said.items()),
                "known": {label: list(rows.items()) for label, rows in known.items()},
            },
        )

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Learn how far each function is to be trusted; write the label of each combination of votes."""
        said: Patterns = Counter()
        known: dict[str, Patterns] = {}
        for number, survey in enumerate(surveys, 1):
            part = read_json(survey.path)
            _add(said, part["said"])
            for label, rows in part["known"].items():
                _add(known.setdefault(label, Counter()), rows)
            progress(number, len(surveys), "counting votes")
        seen = sorted(set(said).union(*known.values()))
        if not said:
            write_json(path, [])
            return {"not judged": "there is no raw text to label"}
        shares = [self.config.shares[label] for label in self.labels] if self.config.shares else None
        model = learn(said, len(self.labels), shares)
        votes_PJ = np.array(seen, np.int64)
        heads_PC = majority(votes_PJ, len(self.labels))
        shares_PC = model(votes_PJ) if self.config.combine == "model" else heads_PC
        table = dict(zip(seen, shares_PC.tolist(), strict=True))
        write_json(path, [[row, values] for row, values in table.items()])
        findings = {"functions": self._trust(model, said), "labels": _rounded(self.labels, model.shares_C)}
        if known:
            heads = dict(zip(seen, heads_PC.tolist(), strict=True))
            findings["on texts with a label"] = self._hits(known, table, heads)
        return findings

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Label each raw text, or say why not."""
        del first
        table = {tuple(row): values for row, values in read_json(path)}
        for example in examples:
            if example.kind != "text":
                yield example
                continue
            row = self._votes(example)
            values = table[row]
            best = max(range(len(values)), key=values.__getitem__)
            spoken = {
                name: self.labels[code]
                for name, code in zip(self._names, row, strict=True)
                if code < len(self.labels)
            }
            sure = round(values[best], 4)
            tied = values.count(values[best]) > 1
            if not spoken or tied or values[best] < self.config.min_confidence:
                reason = (
                    "no labelling function speaks of it" if not spoken else "its label is not sure enough"
                )
                self.counts[reason] += 1
                if self.config.abstain == "remove":
                    yield Removed(example, reason, f"{self.labels[best]} {sure}" if spoken else "")
                else:
                    yield example
                continue
            self.counts[f"labelled {self.labels[best]}"] += 1
            about = {**example.about, "weak_label": {"confidence": sure, "votes": spoken}}
            yield replace(example, kind="labelled", label=self.labels[best], about=about)

    def _votes(self, example: Example) -> tuple[int, ...]:
        return tuple(votes([example.text], self._functions, self.labels)[0].tolist())

    def _trust(self, model: LabelModel, said: Patterns) -> list[Json]:
        """Say of each function how often it speaks, and how often it is thought to be right when it does."""
        total = sum(said.values())
        found: list[Json] = []
        for voter, (name, given) in enumerate(zip(self._names, self.config.functions, strict=True)):
            code = self.labels.index(given.label)
            spoke = sum(count for row, count in said.items() if row[voter] == code)
            joint_C = model.shares_C * model.said_JCV[voter, :, code]
            found.append(
                {
                    "name": name,
                    "label": given.label,
                    "speaks of": round(spoke / total, 4),
                    "thought right": round(float(joint_C[code] / joint_C.sum()), 4),
                }
            )
        return found

    def _hits(
        self,
        known: Mapping[str, Patterns],
        table: Mapping[tuple[int, ...], list[float]],
        heads: Mapping[tuple[int, ...], list[float]],
    ) -> Json:
        """Count how often texts with a label of their own would have got it."""
        count, spoken, hits, by_heads = 0, 0, 0.0, 0.0
        for label, rows in known.items():
            code = self.labels.index(label)
            for row, times in rows.items():
                count += times
                if all(one == len(self.labels) for one in row):
                    continue
                spoken += times
                hits += times * _hit(table[row], code)
                by_heads += times * _hit(heads[row], code)
        shares = {"accuracy": hits, "majority_accuracy": by_heads}
        return {
            "texts": count,
            "spoken of": spoken,
            **{name: round(value / max(spoken, 1), 4) for name, value in shares.items()},
        }


def _add(said: Patterns, rows: Iterable[tuple[Sequence[int], int]]) -> None:
    for row, count in rows:
        said[tuple(row)] += count


def _hit(values: list[float], code: int) -> float:
    """Return the chance that the likeliest is ``code``, where ties are broken by lot."""
    return (values[code] == max(values)) / values.count(max(values))


def _rounded(labels: Sequence[str], shares_C: Shares) -> Json:
    return {label: round(float(share), 4) for label, share in zip(labels, shares_C, strict=True)}
