"""Labels that are probably wrong, found by what a small model says that did not see them (technique 7)."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.core.records import Example, Json, Progress
from tanzim.data.balance import surrogate
from tanzim.data.balance.classes import NONE, Codes, class_of, count_classes, sort_names
from tanzim.data.balance.config import LabelNoiseConfig
from tanzim.data.balance.counts import blind_scores
from tanzim.data.balance.noise import Verdict, find_wrong
from tanzim.data.similarity import digest, normalise
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

_AT_ONCE = 256  # texts that are embedded at a time
_PAIRS = 10  # pairs of labels that are taken for one another, in a report
_ALWAYS = 20  # examples of a class that a surrogate sees, if there are so many


class LabelNoise(WholeStep[LabelNoiseConfig]):
    """Take out, or mark, texts whose label is probably wrong.

    A surrogate that learnt from the other folds gives each text its probabilities (texts that are the same
    are in one fold); confident learning finds the labels they contradict. Where the surrogate knows no more
    than how common the classes are, no label is judged. Only texts with a label take part.
    """

    training_only = True

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the labels of a shard, a hash of each text, and its words or, to be embedded, itself."""
        known: dict[str, int] = {}
        codes, texts = [], []
        for example in examples:
            label = class_of(example)
            codes.append(NONE if label is None else known.setdefault(label, len(known)))
            texts.append("" if label is None else example.text)
        seen = [digest(normalise(text)) for text in texts]
        if self.config.embedding is None:
            words = surrogate.hashed_words(texts)
            parts = {"indptr": words.indptr, "indices": words.indices, "data": words.data}
        else:
            parts = {"texts": _bytes(texts)}
        with path.open("wb") as file:
            np.savez(
                file,
                codes=np.array(codes, np.int64),
                names=_bytes(list(known)),
                digests=np.array(seen, np.uint64),
                **parts,
            )

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Judge every label; write the verdicts."""
        whole = _Whole(surveys, self)
        counts = count_classes(whole.codes, whole.names, "label_noise")
        rows = np.flatnonzero(whole.codes != NONE)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            shares_NC = whole.shares(Path(folder), progress)
            labels = whole.codes[rows]
            knows = _scores(labels, shares_NC, counts)
            verdict = find_wrong(labels, shares_NC, min_per_class=self.config.min_per_class)
        informed = knows["macro_f1"] > knows["blind_macro_f1"]
        findings: Json = {"surrogate": knows}
        if informed:
            findings |= _found(verdict, labels, whole.names)
        else:
            findings["not judged"] = "the surrogate knows no more than how common the classes are"
        likelier = np.full(len(whole.codes), NONE)
        margin = np.zeros(len(whole.codes), np.float32)
        judged = rows[verdict.wrong] if informed else rows[:0]
        likelier[judged] = verdict.likelier[verdict.wrong] if informed else NONE
        margin[judged] = verdict.margin[verdict.wrong] if informed else 0
        with path.open("wb") as file:
            np.savez(file, likelier=likelier, margin=margin, names=_bytes(whole.names))
        return findings

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what is probably labelled wrongly, or mark it."""
        with np.load(path) as verdict:
            likelier, margin, names = verdict["likelier"], verdict["margin"], _strings(verdict["names"])
        for number, example in enumerate(examples, first):
            if likelier[number] == NONE:
                yield example
                continue
            other, much = names[likelier[number]], round(float(margin[number]), 3)
            if self.config.action == "remove":
                detail = f"labelled '{example.label}', rather '{other}': {much:.2f} more likely"
                yield Removed(example, "its label is probably wrong", detail)
            else:
                self.counts["probably wrong labels"] += 1
                noise = {"likelier": other, "margin": much}
                yield replace(example, about={**example.about, "label_noise": noise})


class _Whole:
    """The labels of all examples, and their features shard by shard."""

    def __init__(self, surveys: Sequence[Survey], step: LabelNoise) -> None:
        self._surveys, self._step = surveys, step
        known: dict[str, int] = {}
        codes, digests = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for survey in surveys:
            with np.load(survey.path) as part:
                names = [known.setdefault(name, len(known)) for name in _strings(part["names"])]
                codes.append(np.array([*names, NONE])[part["codes"]])
                digests.append(part["digests"])
        self.codes, self.names = sort_names(np.concatenate(codes), list(known))
        self._digests = np.concatenate(digests)

    def shares(self, folder: Path, progress: Progress) -> npt.NDArray[np.float32]:
        """Return the probabilities of each labelled example's classes, out of its fold, [N, C]."""
        rng = np.random.default_rng(self._step.seed)
        folds = draw_folds(self.codes, self._digests, self._step.config.folds, rng)
        rows = np.flatnonzero(self.codes != NONE)
        place = np.full(len(self.codes), NONE)
        place[rows] = np.arange(len(rows))
        shares_NC = np.lib.format.open_memmap(
            folder / "shares.npy", "w+", np.float32, (len(rows), len(self.names))
        )
        for fold in range(self._step.config.folds):
            picked = self._picked(rows[folds[rows] != fold], rng)
            if len(np.unique(self.codes[picked])) < 2:  # nothing to tell apart: every class is as likely
                held = rows[folds[rows] == fold]
                shares_NC[place[held]] = 1 / len(self.names)
                continue
            model = surrogate.fit(self._features(picked, folder), self.codes[picked], len(self.names))
            for start, survey in self._starts():
                here = np.flatnonzero(folds[start : start + survey.rows] == fold)
                if len(here):
                    shares_NC[place[here + start]] = model(self._part(survey, here, folder))
            progress(fold + 1, self._step.config.folds, "learning the labels")
        return shares_NC

    def _picked(self, others: Codes, rng: np.random.Generator) -> Codes:
        """Draw what a surrogate learns from, some of every class."""
        most = self._step.config.surrogate_rows
        if len(others) <= most:
            return others
        drawn = rng.permutation(others)
        rare = [drawn[self.codes[drawn] == code][:_ALWAYS] for code in range(len(self.names))]
        return np.unique(np.concatenate([drawn[:most], *rare]))

    def _starts(self) -> Iterator[tuple[int, Survey]]:
        start = 0
        for survey in self._surveys:
            yield start, survey
            start += survey.rows

    def _features(self, rows: Codes, folder: Path) -> Any:  # noqa: ANN401 - a SciPy or numpy matrix
        """Return the features of some examples, in order."""
        parts = []
        for start, survey in self._starts():
            here = rows[(rows >= start) & (rows < start + survey.rows)] - start
            if len(here):
                parts.append(self._part(survey, here, folder))
        if self._step.config.embedding is not None:
            return np.concatenate(parts)
        return need("scipy.sparse", surrogate.EXTRA).vstack(parts, format="csr")

    def _part(self, survey: Survey, rows: Codes, folder: Path) -> Any:  # noqa: ANN401 - a matrix
        """Return the features of some examples of one shard."""
        if self._step.config.embedding is not None:
            return self._embedded(survey, folder)[rows]
        with np.load(survey.path) as part:
            sparse = need("scipy.sparse", surrogate.EXTRA)
            parts = (part["data"], part["indices"], part["indptr"])
            return sparse.csr_matrix(parts, shape=(survey.rows, surrogate.PLACES))[rows]

    def _embedded(self, survey: Survey, folder: Path) -> npt.NDArray[np.float32]:
        """Return the embeddings of one shard, made once and kept in a file."""
        kept = folder / f"{survey.path.name}.npy"
        if not kept.is_file():
            assert self._step.config.embedding
            embed = self._step.powers.embed(self._step.config.embedding)
            with np.load(survey.path) as part:
                texts = _strings(part["texts"])
            batches = [embed(texts[i : i + _AT_ONCE]) for i in range(0, len(texts), _AT_ONCE)]
            np.save(kept, np.concatenate(batches))
        vectors: npt.NDArray[np.float32] = np.load(kept, mmap_mode="r")
        return vectors


def draw_folds(
    codes: Codes, digests: npt.NDArray[np.uint64], folds: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw a fold for each example, every class spread evenly, equal texts together, [N]."""
    _, first, text = np.unique(digests, return_index=True, return_inverse=True)
    fold = np.empty(len(first), np.int64)
    owners = codes[first]
    for code in np.unique(owners):
        members = rng.permutation(np.flatnonzero(owners == code))
        fold[members] = (np.arange(len(members)) + rng.integers(folds)) % folds
    return fold[text]


def _scores(labels: Codes, shares_NC: npt.NDArray[np.float32], counts: Codes) -> Json:
    """Say how well the surrogate knows the labels as they are given, beside always the most common one."""
    guesses = np.concatenate([shares_NC[i : i + 65536].argmax(1) for i in range(0, len(labels), 65536)])
    hits = np.bincount(labels[guesses == labels], minlength=len(counts))
    either = counts + np.bincount(guesses, minlength=len(counts))
    accuracy, blind = blind_scores(counts)
    return {
        "accuracy": round(float(hits.sum() / len(labels)), 4),
        "macro_f1": round(float((2 * hits / np.maximum(either, 1)).mean()), 4),
        "blind_accuracy": round(accuracy, 4),
        "blind_macro_f1": round(blind, 4),
    }


def _found(verdict: Verdict, labels: Codes, names: Sequence[str]) -> Json:
    """Count what is suspected, by label, and what it is taken for."""
    wrong = verdict.wrong
    pairs = Counter(zip(labels[wrong].tolist(), verdict.likelier[wrong].tolist(), strict=True))
    return {
        "suspected": int(wrong.sum()),
        "share": round(float(wrong.mean()), 4),
        "by label": {name: int((labels[wrong] == code).sum()) for code, name in enumerate(names)},
        "taken for": [
            {"label": names[label], "likelier": names[other], "examples": count}
            for (label, other), count in pairs.most_common(_PAIRS)
        ],
    }


def _bytes(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _strings(value: npt.NDArray[np.uint8]) -> list[str]:
    texts: list[str] = json.loads(value.tobytes())
    return texts
