"""Evaluation items in the training data: by runs of words in common, and by the likeness of embeddings."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tanzim.core.powers import Powers
from tanzim.core.records import Example, Json, Progress
from tanzim.data.dedup.config import understood
from tanzim.data.screen.config import ContaminationConfig, ContaminationSemanticConfig
from tanzim.data.screen.detect import language_of
from tanzim.data.screen.evaluation import (
    Evaluation,
    fingerprints,
    known,
    read_evaluation,
    read_known,
    turns_of,
)
from tanzim.data.screen.overlap import Overlap
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

ConfigT = TypeVar("ConfigT", ContaminationConfig, ContaminationSemanticConfig)

_ROWS = 20  # training rows that are named for each item
_TOGETHER = 256  # examples whose texts are embedded at once
_PIECE = 800  # characters of a text embedded as one: models read little more


class _Against(WholeStep[ConfigT]):
    """What both have in common: hits of each shard as lines, a report by item, a verdict by example."""

    training_only = True

    @classmethod
    def outside(cls, config: ConfigT) -> list[str]:
        """Return the fingerprints of the evaluation files."""
        return fingerprints(config.against)

    def hits(self, examples: Iterable[Example]) -> Iterator[tuple[int, str, list[tuple[int, str, float]]]]:
        """Yield (number in the shard, name, [(item, part, likeness)]) of each example that shares an item.

        One that cannot be compared is yielded without any.
        """
        raise NotImplementedError

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write a line for each example that shares something."""
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for hit in self.hits(examples):
                file.write(json.dumps(hit, ensure_ascii=False) + "\n")

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write the examples that share something; report them by evaluation item."""
        evaluation = read_evaluation(self.config.against)
        shared: dict[int, list[tuple[float, str, str]]] = defaultdict(list)
        rows: list[int] = []
        skipped = 0
        best: list[tuple[int, float]] = []
        first = 0
        for survey in surveys:
            with survey.path.open(encoding="utf-8") as file:
                for number, name, hits in map(json.loads, file):
                    if not hits:
                        skipped += 1
                        continue
                    rows.append(first + number)
                    best.append((hits[0][0], hits[0][2]))
                    for item, part, likeness in hits:
                        shared[item].append((likeness, part, name))
            first += survey.rows
            progress(first, None, "comparing")
        with path.open("wb") as file:
            np.savez(file, rows=np.array(rows, np.int64), best=np.array(best, np.float64).reshape(-1, 2))
        return self._findings(evaluation, shared, len(rows), first) | self.left_out(evaluation, skipped)

    def left_out(self, evaluation: Evaluation, skipped: int) -> Json:
        """Return findings on what was not compared: here all is.

        Args:
            evaluation: the evaluation set.
            skipped: examples that cannot be compared.

        """
        del evaluation, skipped
        return {}

    def _findings(
        self, evaluation: Evaluation, shared: dict[int, list[tuple[float, str, str]]], rows: int, of: int
    ) -> Json:
        per_item = []
        for item, hits in sorted(shared.items(), key=lambda pair: (-max(pair[1])[0], pair[0])):
            hits.sort(key=lambda hit: -hit[0])
            named = [{"row": name, "part": part, "likeness": round(value, 4)} for value, part, name in hits]
            per_item.append({**evaluation.named(item), "rows": len(hits), "training": named[:_ROWS]})
        return {
            "evaluation_items": len(evaluation.items),
            "evaluation_rows_not_used": evaluation.rejected,
            "contaminated_items": len(shared),
            "training_examples": of,
            "training_examples_that_share": rows,
            "items": per_item,
        }

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what shares an evaluation item, or leave it where only a report is asked for."""
        with np.load(path) as verdict:
            found = dict(zip(verdict["rows"].tolist(), verdict["best"].tolist(), strict=True))
        evaluation = read_evaluation(self.config.against)
        for number, example in enumerate(examples, first):
            if number not in found:
                yield example
                continue
            self.counts["shares an evaluation item"] += 1
            item, likeness = found[number]
            if self.config.action == "report":
                yield example
            else:
                name = str(evaluation.items[int(item)].provenance)
                yield Removed(example, "it holds an evaluation item", f"{name} ({likeness:.2f})")


class Contamination(_Against[ContaminationConfig]):
    """Find evaluation items by runs of words in common; likeness is the share of words in such runs.

    System prompts, tool calls and thinking are not compared.
    """

    def hits(self, examples: Iterable[Example]) -> Iterator[tuple[int, str, list[tuple[int, str, float]]]]:
        """Yield what each example shares."""
        config = self.config
        overlap = _overlap(*known(config.against), config.words, config.shortest, config.common)
        for number, example in enumerate(examples):
            if hits := overlap.find(example, config.coverage):
                yield number, str(example.provenance), [(hit.item, hit.part, hit.coverage) for hit in hits]


@lru_cache(maxsize=2)
def _overlap(
    against: tuple[str, ...], prints: tuple[str, ...], words: int, shortest: int, common: int
) -> Overlap:
    return Overlap(read_known(against, prints).items, words=words, shortest=shortest, common=common)


class ContaminationSemantic(_Against[ContaminationSemanticConfig]):
    """Find evaluation items said in other words; likeness is the cosine of the prompts' embeddings.

    Of a conversation its prompts are compared, of a text each piece of some 800 characters. What is in a
    language that the model does not know is not compared: to the model, all of it is alike. The language is
    ``about.language``, or what the letters show.
    """

    parallel = False

    def hits(self, examples: Iterable[Example]) -> Iterator[tuple[int, str, list[tuple[int, str, float]]]]:
        """Yield what each example is like, and those that the model does not understand, without any."""
        languages = understood(self.config.model, self.config.languages)
        items_ED, owners_E = _embedded(
            *known(self.config.against), self.powers, self.config.model, tuple(languages)
        )
        embed, waiting = self.powers.embed(self.config.model), enumerate(examples)
        while batch := list(islice(waiting, _TOGETHER)):
            pieces = []
            for place, (number, one) in enumerate(batch):
                if texts := _understood(one, languages):
                    pieces += [(place, text) for text in texts]
                elif pieces_of(one):
                    yield number, str(one.provenance), []
            if not pieces or not len(items_ED):
                continue
            likeness_PE = embed([text for _, text in pieces]) @ items_ED.T
            best: dict[int, dict[int, float]] = {}
            for piece, item in zip(*np.nonzero(likeness_PE >= self.config.similarity), strict=True):
                found = best.setdefault(pieces[piece][0], {})
                owner, value = int(owners_E[item]), float(likeness_PE[piece, item])
                found[owner] = max(found.get(owner, 0.0), value)
            for place in sorted(best):
                number, example = batch[place]
                hits = sorted(best[place].items(), key=lambda pair: (-pair[1], pair[0]))
                yield number, str(example.provenance), [(item, "prompt", value) for item, value in hits]

    def left_out(self, evaluation: Evaluation, skipped: int) -> Json:
        """Return how many items and examples are in other languages than the model knows, if any are."""
        languages = understood(self.config.model, self.config.languages)
        items = sum(bool(pieces_of(item)) and not _understood(item, languages) for item in evaluation.items)
        said = {
            "evaluation items not compared: in another language": items,
            "training examples not compared: in another language": skipped,
        }
        return {key: count for key, count in said.items() if count}


@lru_cache(maxsize=2)
def _embedded(
    against: tuple[str, ...], prints: tuple[str, ...], powers: Powers, model: str, languages: tuple[str, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the vectors of an evaluation set's prompts, [E, D], and the items they belong to, [E]."""
    items = read_known(against, prints).items
    pieces = [(item, text) for item, example in enumerate(items) for text in _understood(example, languages)]
    embed = powers.embed(model)
    parts = [
        embed([text for _, text in pieces[start : start + _TOGETHER]])
        for start in range(0, len(pieces), _TOGETHER)
    ]
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return vectors, np.array([item for item, _ in pieces], np.int64)


def _understood(example: Example, languages: Collection[str]) -> list[str]:
    """Return the pieces of an example that are in one of the languages; all for none."""
    said = str(example.about.get("language", ""))
    return [
        piece for piece in pieces_of(example) if not languages or (said or language_of(piece)) in languages
    ]


def pieces_of(example: Example) -> list[str]:
    """Return what of an example is embedded: its prompts, long ones cut at the ends of sentences."""
    return [
        piece for part, text in turns_of(example) if part == "prompt" for piece in _cut(text) if piece.strip()
    ]


def _cut(text: str) -> Iterator[str]:
    held = ""
    for sentence in re.split(r"(?<=[.!?؟。\n])\s+", text):
        if held and len(held) + len(sentence) > _PIECE:
            yield held
            held = ""
        held = f"{held} {sentence}" if held else sentence
        while len(held) > 2 * _PIECE:
            yield held[:_PIECE]
            held = held[_PIECE:]
    yield held
