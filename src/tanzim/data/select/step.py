"""Keep the part of the training examples that is worth training on (point 8 of stage 1)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.records import Example, Json, Progress
from tanzim.data.screen.evaluation import fingerprints, read_evaluation
from tanzim.data.select.choose import choose
from tanzim.data.select.config import SelectConfig
from tanzim.data.select.labelled import Judged, judge_labelled
from tanzim.data.select.ngrams import Words, hash_words
from tanzim.data.select.plain import judge_plain
from tanzim.data.select.whole import Whole, words_of, write_survey
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

_OFTEN = 3  # an example is hard to keep in mind that is forgotten so many times


class Select(WholeStep[SelectConfig]):
    """Keep the examples of the highest reducible loss, influence or effort; or some by chance; or all.

    If all examples have a label, a logistic regression judges them, what is labelled wrongly by its light is
    taken last, and its training dynamics tell how each is learnt (data error potential). Otherwise, or with a
    target, a language model of word pairs judges what the model is to say; turns, tools and tags stay as they
    are. What was found is written to about.select; examples are only taken out, never changed.
    """

    training_only = True

    @classmethod
    def outside(cls, config: SelectConfig) -> list[str]:
        """Return the fingerprints of the target's files."""
        return [] if config.target is None else fingerprints(config.target)

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write labels, hashes, words and features of a shard."""
        target, embedded = self.config.target is not None, self.config.embedding is not None
        write_survey(list(examples), path, target=target, embedded=embedded)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Score all examples, choose, and say what the choice is worth."""
        config = self.config
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            folder = Path(name)
            embed = None if config.embedding is None else self.powers.embed(config.embedding)
            whole = Whole(surveys, embed, folder)
            count = self._count(len(whole))
            findings: Json = {"by": config.by, "of": len(whole)}
            if whole.labelled and config.target is None:
                found = judge_labelled(whole, config, count, self.seed, progress, folder)
                last = found.doubtful if config.doubtful == "last" else None
                kept = choose(whole.codes, found.order, count, last, config.classes)
                findings |= {"surrogate": "labels", "worth": found.worth}
                findings["error potential"] = _potential(found, whole, kept)
                more: dict[str, npt.NDArray[Any]] = {"doubtful": found.doubtful, "area": found.course.area}
                more |= {"forgotten": found.course.forgotten, "learnt": found.course.learnt}
                _write(path, found.scores, kept, more)
            else:
                self._check(whole)
                scores, worth = judge_plain(whole, self._target(), config, count, self.seed, progress)
                kept = choose(np.zeros(len(whole), np.int64), scores, count)
                findings |= {"surrogate": "word pairs", "worth": worth}
                _write(path, scores, kept, {})
        return findings | {"kept": int(kept.sum())}

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Keep what was chosen, with its score; take the rest out."""
        with np.load(path) as verdict:
            found = {name: verdict[name] for name in verdict.files}
        for number, example in enumerate(examples, first):
            about: Json = {}
            if self.config.by not in ("random", "full"):
                about[self.config.by] = float(f"{found['scores'][number]:.4g}")
            if "area" in found:
                about["area_under_margin"] = round(float(found["area"][number]), 3)
                about["forgotten"] = int(found["forgotten"][number])
                about["learnt"] = bool(found["learnt"][number])
                about["doubtful"] = bool(found["doubtful"][number])
            if found["kept"][number]:
                yield replace(example, about={**example.about, "select": about}) if about else example
            else:
                yield Removed(example, "not selected", self._why(about))

    def _why(self, about: Json) -> str:
        if self.config.by not in about:
            return "by chance"
        doubt = ", probably labelled wrongly" if about.get("doubtful") else ""
        return f"{self.config.by} {about[self.config.by]:g}{doubt}"

    def _count(self, rows: int) -> int:
        if self.config.by == "full":
            return rows
        if self.config.share is not None:
            return max(round(self.config.share * rows), min(rows, 1))
        assert self.config.count is not None
        return min(self.config.count, rows)

    def _check(self, whole: Whole) -> None:
        if self.config.embedding is not None and len(whole):
            raise DataError(
                "embeddings serve the examples' labels, and not all examples have one of two labels or more",
                where="data.steps: select",
                fix="leave embedding out: words are looked at",
            )
        if self.config.by in ("reducible", "influence") and self.config.target is None and len(whole):
            raise DataError(
                f"by: {self.config.by} needs labels, and not all examples have one of two labels or more",
                where="data.steps: select",
                fix="name a target (a file of examples of what the model is for) with by: influence, or use "
                "by: effort",
            )

    def _target(self) -> Words | None:
        if self.config.target is None:
            return None
        items = read_evaluation(self.config.target).items
        return hash_words([words_of(one, whole=True) for one in items])


def _potential(found: Judged, whole: Whole, kept: npt.NDArray[np.bool_]) -> Json:
    """Say how many examples may be wrong or are hard to learn, by label."""
    doubt, course = found.doubtful, found.course
    return {
        "probably labelled wrongly": int(doubt.sum()),
        "of these kept": int((doubt & kept).sum()),
        "by label": {name: int(doubt[whole.codes == code].sum()) for code, name in enumerate(whole.names)},
        "area under the margin below 0": int((course.area < 0).sum()),
        "never learnt": int((~course.learnt).sum()),
        "never forgotten": int((course.learnt & (course.forgotten == 0)).sum()),
        f"forgotten {_OFTEN} times or more": int((course.forgotten >= _OFTEN).sum()),
    }


def _write(
    path: Path,
    scores: npt.NDArray[np.float64],
    kept: npt.NDArray[np.bool_],
    more: dict[str, npt.NDArray[Any]],
) -> None:
    with path.open("wb") as file:
        np.savez(file, scores=scores.astype(np.float32), kept=kept, **more)  # type: ignore[arg-type]
