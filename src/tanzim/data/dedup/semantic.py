"""Semantic duplicates: examples that say the same in other words, by a model's embeddings.

As in SemDeDup (Abbas et al. 2023, arXiv:2303.09540): k-means clusters, and cosine similarity inside them.
What lies near the border of further clusters is compared with those, too, so that a border parts few pairs.

Legend: N examples · D numbers of an embedding · C clusters · M rows looked at together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.optional import need
from tanzim.core.records import Example, Json, Progress
from tanzim.data.dedup.columns import Array, Rows, Table
from tanzim.data.dedup.config import DedupSemanticConfig, understood
from tanzim.data.dedup.members import GroupStep, Parents
from tanzim.data.screen.detect import language_of

_TOGETHER = 1024  # texts handed to the model, and rows compared, at a time
_SAMPLE, _MOST_CLUSTERS, _TURNS = 40, 4096, 12  # k-means: examples for each cluster, clusters, rounds
_GUEST_OF = 3  # further clusters that an example is compared with, at the most

Vectors = npt.NDArray[np.float32]


class DedupSemantic(GroupStep[DedupSemanticConfig]):
    """Of examples whose embeddings are nearly the same keep one.

    What is in a language that the model does not know is not compared: to the model, all of it is alike.
    The language is ``about.language``, or what the letters show.
    """

    parallel = False
    reason = "says the same as another example"
    said = "says the same as {where} (cosine {similarity:.2f}; kept as {why})"

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the embeddings, where they come from, and what they are worth."""
        self._languages: list[str] = []
        super().survey(self._noted(examples), path)

    def _noted(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            self._languages.append(str(example.about.get("language", "")))
            yield example

    def _known(self, texts: Sequence[str]) -> Rows:
        """Return the places of the texts that the model understands."""
        known = understood(self.config.model, self.config.languages)
        told = zip(self._languages, texts, strict=True)
        return np.array(
            [i for i, (said, text) in enumerate(told) if not known or (said or language_of(text)) in known],
            np.int64,
        )

    def look(self, texts: Sequence[str]) -> dict[str, Array]:
        """Return embeddings, [N, D], in half precision, which moves a cosine by a thousandth at the most.

        What the model does not understand has none but zeros, and is marked.
        """
        known = self._known(texts)
        understood = self._embedded([texts[place] for place in known] or list(texts[:1]))
        vectors = np.zeros((len(texts), understood.shape[1]), np.float16)
        vectors[known] = understood[: len(known)]
        return {"vector": vectors, "known": np.isin(np.arange(len(texts)), known)}

    def _embedded(self, texts: Sequence[str]) -> Array:
        embed = self.powers.embed(self.config.model)
        found = []
        for first in range(0, len(texts), _TOGETHER):
            part = list(texts[first : first + _TOGETHER])
            vectors = np.asarray(embed(part), np.float32)
            if vectors.ndim != 2 or len(vectors) != len(part) or not np.isfinite(vectors).all():
                raise DataError(
                    f"the model gave numbers of shape {vectors.shape}, or none, for {len(part)} texts",
                    where=f"{self.config.type}: {self.config.model}",
                    fix="use a model that gives one vector of finite numbers for each text",
                )
            found.append(vectors.astype(np.float16))
        return np.concatenate(found) if found else np.empty((0, 0), np.float16)

    def link(self, table: Table, parents: Parents, progress: Progress) -> Json:
        """Put each under the first of those that it is, in steps, nearly the same as."""
        near = need("tanzim.data.dedup.kernels_near", "dedup")
        known = table.at("known", np.arange(len(table))).astype(bool)
        places = np.flatnonzero(known)
        said = {"not compared: in another language": len(known) - len(places)} if not known.all() else {}
        if not len(places):
            return {"clusters": 0, **said}
        count = min(_MOST_CLUSTERS, max(1, round(len(places) / self.config.cluster)))
        centres_CD = _centres(table, places, count, np.random.default_rng(self.seed))
        homes = _assign(table, centres_CD, self.config.threshold, progress)
        homes[~known] = -1
        for cluster in range(count):
            rows = np.flatnonzero((homes == cluster).any(axis=1))
            if not len(rows):
                continue
            own = homes[rows, 0] == cluster
            vectors_MD = table.at("vector", rows).astype(np.float32)
            for start in range(0, len(rows), _TOGETHER):
                part = vectors_MD[start : start + _TOGETHER]
                for other in range(0, start + 1, _TOGETHER):
                    alike = part @ vectors_MD[other : other + _TOGETHER].T >= self.config.threshold
                    one, two = (
                        place + base for place, base in zip(np.nonzero(alike), (start, other), strict=True)
                    )
                    # Two guests meet in a cluster of their own.
                    wanted = (one > two) & (own[one] | own[two])
                    near.join(parents, rows[one[wanted]], rows[two[wanted]])
            progress(cluster + 1, count, "comparing")
        near.flatten(parents)
        return {"clusters": count, **said}

    def alike(self, table: Table, rows: Rows, kept: Rows) -> Array:
        """Return the cosines of pairs of examples, [M]."""
        both, places = np.unique(np.concatenate([rows, kept]), return_inverse=True)
        cosines = np.empty(len(rows))
        if len(rows):
            vectors_MD = table.at("vector", both).astype(np.float32)
            one, two = places.reshape(2, -1)
            for start in range(0, len(rows), _TOGETHER):
                part = slice(start, start + _TOGETHER)
                cosines[part] = np.einsum("md,md->m", vectors_MD[one[part]], vectors_MD[two[part]])
        return cosines


def _centres(table: Table, places: Rows, count: int, rng: np.random.Generator) -> Vectors:
    """Return the centres of spherical k-means over a sample of rows, [C, D] (Dhillon and Modha, 2001)."""
    rows = np.sort(rng.choice(places, min(len(places), _SAMPLE * count), replace=False))
    vectors_MD: Vectors = table.at("vector", rows).astype(np.float32)
    centres_CD = vectors_MD[rng.choice(len(rows), min(count, len(rows)), replace=False)]
    for _ in range(_TURNS if count > 1 else 1):
        home = (vectors_MD @ centres_CD.T).argmax(axis=1)
        sums_CD = np.zeros_like(centres_CD)
        np.add.at(sums_CD, home, vectors_MD)
        length = np.linalg.norm(sums_CD, axis=1, keepdims=True)
        centres_CD = np.where(
            length > 0, sums_CD / np.maximum(length, 1e-12), centres_CD
        )  # an empty one stays
    return centres_CD


def _assign(table: Table, centres_CD: Vectors, threshold: float, progress: Progress) -> npt.NDArray[np.int16]:
    """Return the nearest cluster of each example, and those near whose border it lies (else -1), [N, 1 + G].

    A vector at distance d from a plane has none beyond the plane that is nearer than d; unit vectors of
    cosine t are √(2 - 2t) apart, so that pairs farther from the border than this are not parted by it.
    """
    reach = math.sqrt(2 - 2 * threshold)
    count = min(len(centres_CD), 1 + _GUEST_OF)
    homes = np.full((len(table), count), -1, np.int16)
    between_CC = np.sqrt(np.maximum(2 - 2 * centres_CD @ centres_CD.T, 1e-12))
    for part, start in zip(table.parts, table.starts.tolist(), strict=False):
        vectors: Any = part.read("vector")
        for first in range(0, len(vectors), _TOGETHER):
            near_MC = vectors[first : first + _TOGETHER].astype(np.float32) @ centres_CD.T
            best = np.argpartition(-near_MC, count - 1, axis=1)[:, :count]
            order = np.argsort(-np.take_along_axis(near_MC, best, 1), axis=1, kind="stable")
            best = np.take_along_axis(best, order, 1)
            ahead = np.take_along_axis(near_MC, best[:, :1], 1) - np.take_along_axis(near_MC, best, 1)
            guest = ahead <= reach * between_CC[best[:, :1], best]
            guest[:, 0] = True
            homes[start + first : start + first + len(best)] = np.where(guest, best, -1)
        progress(start + len(vectors), len(table), "clustering")
    return homes
