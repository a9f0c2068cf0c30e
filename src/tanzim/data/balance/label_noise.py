"""Labels that are probably wrong, found by what a small model says that did not see them (technique 7)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Example, Json, Progress
from tanzim.data.balance import surrogate
from tanzim.data.balance.classes import NONE, Codes, class_of, count_classes
from tanzim.data.balance.config import LabelNoiseConfig
from tanzim.data.balance.counts import blind_scores
from tanzim.data.balance.labelled import Labelled, as_bytes, as_strings, draw_folds, write_labelled
from tanzim.data.balance.noise import Verdict, find_wrong
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

_PAIRS = 10  # pairs of labels that are taken for one another, in a report


class LabelNoise(WholeStep[LabelNoiseConfig]):
    """Take out, or mark, texts whose label is probably wrong.

    A surrogate that learnt from the other folds gives each text its probabilities (texts that are the same
    are in one fold); confident learning finds the labels they contradict. Where the surrogate knows no more
    than how common the classes are, no label is judged. Only texts with a label take part.
    """

    training_only = True

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the labels of a shard, a hash of each text, and its words or, to be embedded, itself."""
        labels, texts = [], []
        for example in examples:
            labels.append(class_of(example))
            texts.append("" if labels[-1] is None else example.text)
        write_labelled(path, labels, texts, embedded=self.config.embedding is not None)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Judge every label; write the verdicts."""
        config = self.config
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            folder = Path(name)
            embed = None if config.embedding is None else self.powers.embed(config.embedding)
            whole = Labelled(surveys, embed, folder)
            counts = count_classes(whole.codes, whole.names, "label_noise")
            rows = np.flatnonzero(whole.codes != NONE)
            shares_NC = _shares(whole, config, self.seed, folder, progress)
            labels = whole.codes[rows]
            knows = _scores(labels, shares_NC, counts)
            verdict = find_wrong(labels, shares_NC, min_per_class=config.min_per_class)
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
            np.savez(file, likelier=likelier, margin=margin, names=as_bytes(whole.names))
        return findings

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what is probably labelled wrongly, or mark it."""
        with np.load(path) as verdict:
            likelier, margin, names = verdict["likelier"], verdict["margin"], as_strings(verdict["names"])
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


def _shares(
    whole: Labelled, config: LabelNoiseConfig, seed: int, folder: Path, progress: Progress
) -> npt.NDArray[np.float32]:
    """Return the probabilities of each labelled example's classes, out of its fold, [N, C], in a file."""
    rng = np.random.default_rng(seed)
    folds = draw_folds(whole.codes, whole.digests, config.folds, rng)
    rows = np.flatnonzero(whole.codes != NONE)
    place = np.full(len(whole), NONE)
    place[rows] = np.arange(len(rows))
    shares_NC = np.lib.format.open_memmap(
        folder / "shares.npy", "w+", np.float32, (len(rows), len(whole.names))
    )
    for fold in range(config.folds):
        picked = whole.drawn(rows[folds[rows] != fold], config.surrogate_rows, rng)
        if len(np.unique(whole.codes[picked])) < 2:  # nothing to tell apart: every class is as likely
            held = rows[folds[rows] == fold]
            shares_NC[place[held]] = 1 / len(whole.names)
            continue
        model = surrogate.fit(whole.raw(picked), whole.codes[picked], len(whole.names))
        for start, survey in whole.starts():
            at = slice(start, start + survey.rows)
            here = np.flatnonzero((folds[at] == fold) & (whole.codes[at] != NONE))
            if len(here):
                shares_NC[place[here + start]] = model(whole.part(survey, here))
        progress(fold + 1, config.folds, "learning the labels")
    return shares_NC


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
