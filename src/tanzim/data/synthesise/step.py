"""Examples written by a language model: generate → refine → verify → leave out what is there already.

A draft becomes an example only if a verifier, asked apart for each, called it accurate and relevant; an
answer that is neither yes nor no counts as no. What is rejected is kept, with its reason, in
``rejected.jsonl``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json, write_text
from tanzim.core.powers import Complete
from tanzim.core.records import Example, Json, Message, Progress, Provenance
from tanzim.core.seeds import derive
from tanzim.data.augment.kept import KeptAnswers
from tanzim.data.balance.sample import derived
from tanzim.data.ledger import removed_line
from tanzim.data.similarity import normalise, shingles
from tanzim.data.step import Outcome, Removed, Survey, WholeStep
from tanzim.data.synthesise import prompts
from tanzim.data.synthesise.config import SynthesiseConfig
from tanzim.data.synthesise.prompts import Seed

_AT_ONCE = 32  # drafts that go through all stages together


@dataclass(slots=True)
class Draft:
    """A text on its way to an example.

    Args:
        seed: what it is written from.
        number: which of the drafts from that seed it is, counted from 0.
        value: question and answer, or text; empty until it is written.
        reason: why it is rejected; empty for one that is not.
        detail: what the verifier said, or what the draft repeats.

    """

    seed: Seed
    number: int
    value: Json
    reason: str = ""
    detail: str = ""


def write_drafts(drafts: Sequence[Draft], writer: Complete, verifier: Complete, task: str = "") -> None:
    """Write drafts and verify them; each ends with a value, a reason to reject it, or both.

    Both questions are asked of each draft that could be read, whatever the answer to the first.

    Args:
        drafts: with their seeds; filled in.
        writer: the model that writes.
        verifier: the model that checks.
        task: what the examples are for.

    """
    answers = writer([prompts.generate(one.seed, task, one.number) for one in drafts])
    _read(drafts, answers, "the draft could not be read")
    left = [one for one in drafts if not one.reason]
    _read(
        left,
        writer([prompts.refine(one.seed, task, one.value) for one in left]),
        "the refined draft could not be read",
    )
    left = [one for one in left if not one.reason]
    asked = [prompts.accuracy(one.seed, task, one.value) for one in left]
    accurate = verifier(asked)
    asked = [prompts.relevance(one.seed, task, one.value) for one in left]
    relevant = verifier(asked)
    for one, first, second in zip(left, accurate, relevant, strict=True):
        for answer, what in ((first, "accurate"), (second, "relevant")):
            verdict = prompts.read_verdict(answer)
            if verdict is not True and not one.reason:
                one.reason = f"not {what}" if verdict is False else f"no verdict whether it is {what}"
                one.detail = answer[:300]


def _read(drafts: Sequence[Draft], answers: Sequence[str], reason: str) -> None:
    for one, answer in zip(drafts, answers, strict=True):
        value = prompts.read_draft(one.seed, answer)
        if value is None:
            one.reason, one.detail = reason, answer[:300]
        else:
            one.value = value


class Known:
    """A few texts, to find those among many that repeat one of them.

    Args:
        most: Jaccard similarity of the 5-grams of letters from which two texts say the same.

    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._sizes: dict[str, int] = {}
        self._holders: dict[int, set[str]] = {}

    def add(self, text: str) -> str:
        """Take a text in; return it as it is compared."""
        folded, own = _grams(text)
        self._sizes[folded] = len(own)
        for gram in own:
            self._holders.setdefault(gram, set()).add(folded)
        return folded

    def remove(self, folded: str) -> None:
        """Forget a text, given as it is compared."""
        del self._sizes[folded]
        for holders in self._holders.values():
            holders.discard(folded)

    def repeated(self, text: str) -> str | None:
        """Return the text, as it is compared, that this one repeats most; None if it repeats none."""
        _, own = _grams(text)
        shared = Counter(holder for gram in own for holder in self._holders.get(gram, ()))
        alike = {one: n / (len(own) + self._sizes[one] - n) for one, n in shared.items()}
        best = max(alike, key=lambda one: (alike[one], one), default=None)
        return best if best is not None and alike[best] >= self._most else None


def _grams(text: str) -> tuple[str, list[int]]:
    folded = normalise(text)
    return folded, np.unique(shingles(folded)).tolist()


class Synthesise(WholeStep[SynthesiseConfig]):
    """Make examples out of seeds drawn from the training data; their origin says "synthesise k".

    What the models answer is kept as it comes: after a kill nothing is asked twice.
    """

    training_only = True
    parallel = False

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write what each example gives to write from, and where it came from."""
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for example in examples:
                seed = prompts.seed_of(example, self.config.make, self.config.max_characters)
                origin = example.provenance
                line = {
                    "seed": seed and [seed.shape, seed.text, seed.label, seed.document],
                    "origin": [origin.source, origin.row, origin.derived],
                    "text": _key_text(example),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Let the models write and check; write what may be taken by the number of its seed."""
        config = self.config
        kept = KeptAnswers(self.powers.complete(config.model), path.with_name("answers.jsonl"))
        checked = kept
        if config.verifier:
            checked = KeptAnswers(
                self.powers.complete(config.verifier), path.with_name("verifier_answers.jsonl")
            )
        places = self._places(surveys)
        drafts: list[tuple[int, Json, Draft]] = []
        for number, line in enumerate(_lines(surveys)):
            for copy in range(places[number]):
                drafts.append((number, line, Draft(Seed(*line["seed"]), copy, {})))
        for start in range(0, len(drafts), _AT_ONCE):
            block = [draft for _, _, draft in drafts[start : start + _AT_ONCE]]
            write_drafts(block, kept, checked, config.task)
            progress(start + len(block), len(drafts), "writing")
        self._leave_out_repeated([draft for _, _, draft in drafts], surveys)
        rejected = [_rejected(line["origin"], draft) for _, line, draft in drafts if draft.reason]
        # Beside the lines of the shards: the chain joins all files of this kind.
        write_text(
            path.with_name("part-written.rejected.jsonl"),
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rejected),
        )
        made: dict[str, list[Json]] = {}
        for number, _, draft in drafts:
            if not draft.reason:
                made.setdefault(str(number), []).append(draft.value)
        write_json(path, made)
        why = Counter(draft.reason for _, _, draft in drafts if draft.reason)
        return {"tried": len(drafts), "made": len(drafts) - why.total(), "rejected": dict(why.most_common())}

    def _places(self, surveys: Sequence[Survey]) -> Counter[int]:
        """Return how many drafts are written from each example, all equally often."""
        fit = [number for number, line in enumerate(_lines(surveys)) if line["seed"]]
        if not fit:
            raise DataError(
                "there is nothing to write from",
                where="data.steps: synthesise",
                fix="give texts, texts with labels, or conversations; make: questions needs texts",
            )
        each, over = divmod(self.config.count, len(fit))
        drawn = Random(derive(self.seed, "seeds")).sample(fit, over)
        return Counter({number: each for number in fit if each}) + Counter(drawn)

    def _leave_out_repeated(self, drafts: Sequence[Draft], surveys: Sequence[Survey]) -> None:
        """Reject drafts that repeat one another or what is there."""
        fresh = Known(self.config.max_similarity)
        places: dict[str, Draft] = {}
        for draft in drafts:
            if draft.reason:
                continue
            text = _compared(draft)
            if (other := fresh.repeated(text)) is not None:
                draft.reason, draft.detail = "repeats another that was written", other[:300]
                continue
            places[fresh.add(text)] = draft
        # The new texts are few and held; those that are there pass by one at a time.
        for line in _lines(surveys):
            if not line["text"]:
                continue
            while (found := fresh.repeated(line["text"])) is not None:
                draft = places.pop(found)
                draft.reason, draft.detail = "repeats what is there", line["text"][:300]
                fresh.remove(found)

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield each example, and what was written from it after it."""
        made = read_json(path)
        for number, example in enumerate(examples, first):
            yield example
            for copy, value in enumerate(made.get(str(number), ()), 1):
                self.counts["made"] += 1
                yield _example(example, value, copy, self.config.model)


def _example(seed: Example, value: Json, copy: int, model: str) -> Example:
    """Return the example that a draft became; label, licence and system prompt are those of its seed."""
    new = derived(seed, f"synthesise {copy}")
    about = {**new.about, "written_by": model}
    if "text" in value:
        return replace(new, text=value["text"], about=about)
    system = tuple(turn for turn in seed.messages[:1] if turn.role == "system")
    turns = (*system, Message("user", value["question"]), Message("assistant", value["answer"]))
    return replace(new, kind="messages", text="", messages=turns, about=about)


def _compared(draft: Draft) -> str:
    """Return what of a draft must be new: its text, or its question."""
    return str(draft.value.get("text") or draft.value["question"])


def _key_text(example: Example) -> str:
    """Return what of an example a draft must not repeat."""
    asked = (turn.content for turn in example.messages if turn.role == "user")
    return example.text or next(asked, "")


def _rejected(origin: Sequence[Any], draft: Draft) -> Json:
    """Return the line of ``rejected.jsonl`` for a draft: its seed's row, and why it is no example."""
    source, row, how = origin
    how = f"{how}, synthesise draft {draft.number + 1}".lstrip(", ")
    text = Example("text", Provenance(source, row, how), text=_said(draft))
    return removed_line("synthesise", Removed(text, draft.reason, draft.detail))


def _said(draft: Draft) -> str:
    return prompts.shown(draft.value) if draft.value else draft.detail


def _lines(surveys: Sequence[Survey]) -> Iterator[Json]:
    for survey in surveys:
        with survey.path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
