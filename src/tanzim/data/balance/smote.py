"""SMOTE for texts: a point between two texts of a rare class, and a text to stand for it.

A point in embedding space has no words, and what is trained here learns from words. So each point is given
a text: the nearest one of its class (``text: nearest``: a repetition that visits the inside of a class more
often than its rim, nothing new is said), or one that a language model writes between the two texts
(``text: write``). A written text is taken only if it is not there yet and its embedding is as near to the
point as the farther of its two parents; the others are counted, and some of them shown.
The points themselves are for models on embeddings (`tanzim.data.balance.points.smote`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import ConfigError
from tanzim.core.files import read_json, write_json
from tanzim.core.records import Example, Json, Message, Progress
from tanzim.core.seeds import derive
from tanzim.data.balance.classes import NONE, class_of, count_classes, sort_names
from tanzim.data.balance.config import SmoteConfig
from tanzim.data.balance.counts import Counts, raised
from tanzim.data.balance.points import Draws, draw, interpolate, nearest_neighbours, squared_distances
from tanzim.data.balance.sample import before_and_after, derived
from tanzim.data.ingest.rows import excerpt
from tanzim.data.similarity import normalise
from tanzim.data.step import Outcome, Survey, WholeStep

_AT_ONCE = 256  # texts that are embedded, or written, at a time
_SHOWN = 10  # written texts that were not taken, and are shown
_ASKED = """\
Two texts of the class "{label}":

1. {one}

2. {two}

Write one new text of the same class, in their language and style, that lies between the two in what it \
says and repeats neither. Answer with the text alone."""


@dataclass(frozen=True, slots=True)
class _Class:
    """The texts of one class that lacks some.

    Args:
        name: of the class.
        numbers: of its examples among all, [N].
        texts: N texts.
        lacking: how many are to be made.

    """

    name: str
    numbers: npt.NDArray[np.int64]
    texts: list[str]
    lacking: int


@dataclass(frozen=True, slots=True)
class _Points:
    """What was drawn for a class: M points between texts."""

    draws: Draws
    neighbours_NK: npt.NDArray[np.int64]
    vectors_ND: npt.NDArray[np.float32]
    points_MD: npt.NDArray[np.float64]


class Smote(WholeStep[SmoteConfig]):
    """Make examples of rare classes between two of their own; their origin says "smote k".

    Texts with a label take part; conversations, pairs and words with tags stay as they are.
    """

    training_only = True
    parallel = False

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the label and the text of each example, a line each."""
        with path.open("w", encoding="utf-8") as file:
            for example in examples:
                label = class_of(example)
                line = None if label is None else [label, example.text]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Draw the points, find a text for each, and write what follows which example."""
        if self.config.text == "write" and not self.config.writer:
            raise ConfigError(
                "text: write needs a language model",
                where="data.steps: smote",
                fix="name one in writer, or take text: nearest",
            )
        names, counts, lacking = self._classes(surveys)
        made: defaultdict[int, list[Json]] = defaultdict(list)
        findings: Json = {"too few to join": [name for name, n in zip(names, counts, strict=True) if n < 2]}
        for one in lacking:
            points = self._points(one, progress)
            if self.config.text == "nearest":
                for number in _nearest(one, points):
                    made[number].append({})
            else:
                self._written(one, points, made, findings, progress)
        write_json(path, {str(number): texts for number, texts in made.items()})
        after = counts + np.array([sum(len(made[n]) for n in _numbers(lacking, name)) for name in names])
        return {**before_and_after(names, counts, after), **{k: v for k, v in findings.items() if v}}

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield each example, and what was made from it after it."""
        made = read_json(path)
        for number, example in enumerate(examples, first):
            yield example
            for copy, text in enumerate(made.get(str(number), ()), 1):
                self.counts[f"made for {example.label}"] += 1
                new = derived(example, f"{self.name} {copy}")
                yield replace(new, text=text["text"]) if text else new

    def _classes(self, surveys: Sequence[Survey]) -> tuple[list[str], Counts, list[_Class]]:
        """Return the classes, how common they are, and the texts of those that lack some."""
        known: dict[str, int] = {}
        numbers = [
            NONE if line is None else known.setdefault(line[0], len(known)) for line in _lines(surveys)
        ]
        codes, names = sort_names(np.array(numbers, np.int64), list(known))
        counts = count_classes(codes, names, "smote")
        most = counts * (1 + self.config.max_copies)
        wanted = np.where(counts > 1, np.minimum(raised(counts, self.config.ratio), most), counts)
        rare = {name for name, now, then in zip(names, counts, wanted, strict=True) if then > now}
        texts: defaultdict[str, list[str]] = defaultdict(list)
        for line in _lines(surveys):
            if line is not None and line[0] in rare:
                texts[line[0]].append(line[1])
        lacking = [
            _Class(name, np.flatnonzero(codes == code), texts[name], int(wanted[code] - counts[code]))
            for code, name in enumerate(names)
            if name in rare
        ]
        return names, counts, lacking

    def _points(self, one: _Class, progress: Progress) -> _Points:
        embed = self.powers.embed(self.config.embedding)
        parts = []
        for start in range(0, len(one.texts), _AT_ONCE):
            parts.append(embed(one.texts[start : start + _AT_ONCE]))
            progress(min(start + _AT_ONCE, len(one.texts)), len(one.texts), f"embedding {one.name}")
        vectors_ND = np.concatenate(parts)
        near = min(self.config.neighbours, len(one.texts) - 1)
        neighbours_NK = nearest_neighbours(vectors_ND, near)
        draws = draw(one.lacking, len(one.texts), near, derive(self.seed, one.name))
        return _Points(draws, neighbours_NK, vectors_ND, interpolate(vectors_ND, neighbours_NK, draws))

    def _written(
        self,
        one: _Class,
        points: _Points,
        made: dict[int, list[Json]],
        findings: Json,
        progress: Progress,
    ) -> None:
        """Let a language model write a text for each point; take those that lie where they should."""
        assert self.config.writer
        complete, embed = self.powers.complete(self.config.writer), self.powers.embed(self.config.embedding)
        parents = points.draws.parents
        others = points.neighbours_NK[parents, points.draws.columns]
        known = {normalise(text) for text in one.texts}
        for start in range(0, len(parents), _AT_ONCE):
            block = range(start, min(start + _AT_ONCE, len(parents)))
            asked = [_question(one, parents[m], others[m]) for m in block]
            answers = [text.strip() for text in complete(asked)]
            vectors = embed([text or "-" for text in answers])
            for m, text, vector in zip(block, answers, vectors, strict=True):
                fault = _fault(text, vector, points, (int(parents[m]), int(others[m]), m), known)
                if fault:
                    findings[fault] = findings.get(fault, 0) + 1
                    shown = findings.setdefault("not taken", [])
                    if len(shown) < _SHOWN:
                        shown.append({"class": one.name, "why": fault, "text": excerpt(text)})
                else:
                    known.add(normalise(text))
                    made[int(one.numbers[parents[m]])].append({"text": text})
            progress(block.stop, len(parents), f"writing {one.name}")


def _lines(surveys: Sequence[Survey]) -> Iterator[tuple[str, str] | None]:
    for survey in surveys:
        with survey.path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def _numbers(lacking: Sequence[_Class], name: str) -> list[int]:
    return [number for one in lacking if one.name == name for number in one.numbers.tolist()]


def _nearest(one: _Class, points: _Points) -> Iterator[int]:
    """Yield the number of the example nearest to each point."""
    for start in range(0, len(points.points_MD), _AT_ONCE):
        distances = squared_distances(points.points_MD[start : start + _AT_ONCE], points.vectors_ND)
        yield from one.numbers[distances.argmin(axis=1)].tolist()


def _question(one: _Class, parent: int, other: int) -> list[Message]:
    asked = _ASKED.format(label=one.name, one=one.texts[parent], two=one.texts[other])
    return [Message("user", asked)]


def _fault(
    text: str, vector: npt.NDArray[np.float32], points: _Points, place: tuple[int, int, int], known: set[str]
) -> str:
    """Say what is wrong with a text that was written for a point; nothing if it may be taken."""
    if not normalise(text):
        return "said nothing"
    if normalise(text) in known:
        return "said what is there already"
    parent, other, m = place
    point = points.points_MD[m]
    farthest = max(float(((points.vectors_ND[end] - point) ** 2).sum()) for end in (parent, other))
    return "not between its parents" if float(((vector - point) ** 2).sum()) > farthest else ""
