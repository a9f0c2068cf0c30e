"""What the prepared examples are, counted in one pass: languages, sources, licences, how they came to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tanzim.core.records import Example
from tanzim.data.inspect import scripts
from tanzim.data.store import examples_of, read_batches
from tanzim.data.texts import words_of

SPLITS = ("train", "validation", "test")
_ZWNJ = "\u200c"
_LEAST = 0.3  # share of its letters from which a script counts as one of an example's


@dataclass(slots=True)
class Tally:
    """Counts over prepared examples.

    Args:
        rows: examples of each split.
        kinds: examples by kind.
        languages: examples by ``about.language``, where a step wrote it.
        scripts: examples by the script most of their letters are in.
        half_spaces: examples with a half-space (U+200C).
        sources: examples by file or other source.
        licences: examples by ``about.licence``.
        derived: examples that a step made, by the step.
        samples: a few examples of each split.

    """

    rows: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    half_spaces: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    derived: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Example]] = field(default_factory=dict)

    def add(self, split: str, example: Example) -> None:
        """Count one example."""
        text = words_of(example)
        self.rows[split] += 1
        self.kinds[example.kind] += 1
        self.languages[str(example.about.get("language", "not told"))] += 1
        letters = scripts(text)
        total = letters.total()
        script, most = letters.most_common(1)[0] if total else ("none", 0)
        self.scripts[script if most > (1 - _LEAST) * total or not total else "mixed"] += 1
        self.half_spaces += _ZWNJ in text
        self.sources[example.provenance.source] += 1
        self.licences[str(example.about.get("licence", "not told"))] += 1
        if example.provenance.derived:
            self.derived[example.provenance.derived.split()[0]] += 1
        samples = self.samples.setdefault(split, [])
        if len(samples) < 3:
            samples.append(example)


def tally(folder: Path, most: int | None = None) -> Tally:
    """Count what the splits in a folder of prepared data hold.

    Args:
        folder: what ``prepare`` wrote to.
        most: examples of each split that are looked at; None for all.

    """
    counts = Tally()
    for split in SPLITS:
        for example in islice(_examples(folder / f"{split}.arrow"), most):
            counts.add(split, example)
    return counts


def _examples(path: Path) -> Iterator[Example]:
    for batch in read_batches(path) if path.is_file() else ():
        for example, _ in examples_of(batch):
            yield example
