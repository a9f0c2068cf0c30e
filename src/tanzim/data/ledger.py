"""What a step did: the count of what went in and came out, and each removal with its reason."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json, Provenance
from tanzim.data.ingest.rows import excerpt
from tanzim.data.step import Outcome, Removed, Step
from tanzim.data.texts import words_of

HIDDEN = "(hidden by this step)"  # in place of what a step took out for privacy's sake
_LEAD = 60  # characters that a sample of a change shows before it
_SAMPLES = 3  # examples of each reason, and of changes, that a report shows


@dataclass(slots=True)
class StepReport:
    """What a step did: rows_in + added = rows_out + removed.

    Args:
        type: of the step.
        settings: its config.
        rows_in: examples that came in.
        rows_out: examples that came out.
        changed: of those that came in and out, how many are not the same any more.
        added: examples it made.
        removed: examples it took out, by reason.
        counts: what it saw.
        findings: what it decided, and on what grounds.
        samples: a few examples of what was removed, changed and added.
        seconds: wall time, without what was cached.
        cached: whether the result was there already.
        folder: the name of the folder in the cache that keeps what came out.

    """

    type: str
    settings: Json
    rows_in: int = 0
    rows_out: int = 0
    changed: int = 0
    added: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    findings: Json = field(default_factory=dict)
    samples: Json = field(default_factory=dict)
    seconds: float = 0.0
    cached: bool = False
    folder: str = ""

    def take(self, part: Json) -> None:
        """Add what was counted on one shard."""
        for name in ("rows_in", "rows_out", "changed", "added"):
            setattr(self, name, getattr(self, name) + part[name])
        self.removed.update(part["removed"])
        self.counts.update(part["counts"])
        for kind, samples in part["samples"].items():
            self.samples[kind] = (self.samples.get(kind, []) + samples)[:_SAMPLES]

    def to_json(self) -> Json:
        """Return it as plain JSON values."""
        return {**asdict(self), "removed": dict(self.removed), "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, value: Json) -> StepReport:
        """Make it from what `to_json` returned."""
        counters: dict[str, Counter[str]] = {name: Counter(value[name]) for name in ("removed", "counts")}
        return cls(**{**value, **counters})


class Ledger:
    """Sees what goes into a step and what comes out, and keeps the count."""

    def __init__(self, step: Step[Any]) -> None:
        self._step = step
        self._inside: dict[Provenance, tuple[Example, str, Json]] = {}
        self._numbers: Counter[str] = Counter()
        self._removed: Counter[str] = Counter()
        self._samples: dict[str, list[Json]] = {}

    def incoming(self, stored: Iterable[tuple[Example, str]]) -> Iterator[Example]:
        """Pass on what goes into the step.

        Args:
            stored: examples, each with the text it is stored as.

        """
        for example, text in stored:
            self._numbers["rows_in"] += 1
            self._inside[example.provenance] = example, text, dict(example.about)
            yield example

    def outgoing(
        self,
        outcomes: Iterable[Outcome],
        file: Any,  # noqa: ANN401 - a text file
    ) -> Iterator[tuple[Example, str | None]]:
        """Yield what comes out, with the text it was stored as where it is as it was.

        Args:
            outcomes: what the step gives back.
            file: open for writing; takes the lines of ``rejected.jsonl``.

        Raises:
            DataError: the step lost an example, or gave out one that it had not.

        """
        for outcome in outcomes:
            if isinstance(outcome, Removed):
                if self._inside.pop(outcome.example.provenance, None) is None:
                    raise self._fault(f"took out {outcome.example.provenance}, which it had not or no more")
                self._removed[outcome.reason] += 1
                line = removed_line(self._step.config.type, outcome)
                if self._step.private:
                    line["content"] = HIDDEN
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._sample(f"removed: {outcome.reason}", line)
                continue
            yield outcome, self._kept(outcome)
        if self._inside:
            lost = next(iter(self._inside))
            raise self._fault(f"lost {len(self._inside)} examples without a reason, the first being {lost}")

    def _kept(self, outcome: Example) -> str | None:
        """Count what comes out; return the text it was stored as, if it is as it was."""
        self._numbers["rows_out"] += 1
        if outcome.provenance in self._inside:
            before, text, about = self._inside.pop(outcome.provenance)
            if outcome.about == about and (before is outcome or before == outcome):
                return text
            self._numbers["changed"] += 1
            if len(self._samples.get("changed", ())) < _SAMPLES:
                self._show_change(words_of(before), words_of(outcome))
            return None
        if not outcome.provenance.derived:
            raise self._fault(f"gave out {outcome.provenance}, which it had not or no more")
        self._numbers["added"] += 1
        self._sample("added", {"from": str(outcome.provenance), "text": _shown(outcome)})
        return None

    def _show_change(self, before: str, after: str) -> None:
        """Take a sample from where the two begin to differ."""
        if before == after:
            return
        pairs = enumerate(zip(before, after, strict=False))
        first = next((place for place, (one, two) in pairs if one != two), min(len(before), len(after)))
        start = before.rfind(" ", 0, first - _LEAD) + 1 if first > 2 * _LEAD else 0
        shown = [f"{'…' if start else ''}{excerpt(text[start:])}" for text in (before, after)]
        self._sample("changed", {"before": HIDDEN if self._step.private else shown[0], "after": shown[1]})

    def _fault(self, what: str) -> DataError:
        return DataError(
            f"the step {what}",
            where=f"data.steps: {self._step.config.type}",
            fix="this is a fault of the step: report it, and leave the step out",
        )

    def _sample(self, kind: str, value: Json) -> None:
        samples = self._samples.setdefault(kind, [])
        if len(samples) < _SAMPLES:
            samples.append(value)

    def to_json(self) -> Json:
        """Return the counts as `StepReport.take` reads them."""
        names = ("rows_in", "rows_out", "changed", "added")
        return {
            **{name: self._numbers[name] for name in names},
            "removed": dict(self._removed),
            "counts": dict(self._step.counts),
            "samples": self._samples,
        }


def removed_line(step: str, removed: Removed) -> Json:
    """Return the line of ``rejected.jsonl`` for an example that a step (of that type) took out."""
    provenance = removed.example.provenance
    return {
        "file": provenance.source,
        "row": provenance.row,
        **({"derived": provenance.derived} if provenance.derived else {}),
        "step": step,
        "reason": removed.reason,
        "detail": removed.detail,
        "content": _shown(removed.example),
    }


def join_lines(files: Sequence[Path], out: Path, *, more: bool = False) -> None:
    """Put files of lines one after another into a new file, or (``more``) at the end of it."""
    with out.open("ab" if more else "wb") as joined:
        for file in files:
            with file.open("rb") as part:
                shutil.copyfileobj(part, joined)


def _shown(example: Example) -> str:
    return excerpt(words_of(example))
