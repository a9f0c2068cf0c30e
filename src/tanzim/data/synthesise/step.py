"""Examples written by a language model: generate → refine → verify → leave out what is there already.

A draft becomes an example only if rules find no fault with it and a verifier, asked apart, bears it out: by
calling it accurate and relevant (an answer that is neither yes nor no counts as no), or, of small models,
by answering the same. What is rejected is kept, with its reason, in ``rejected.jsonl``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.files import read_json, write_json, write_text
from tanzim.core.records import Example, Json, Message, Progress, Provenance
from tanzim.core.seeds import derive
from tanzim.data.augment.kept import KeptAnswers
from tanzim.data.balance.sample import derived
from tanzim.data.clean.linguistic import guess, sentences
from tanzim.data.ledger import removed_line
from tanzim.data.step import Outcome, Removed, Survey, WholeStep
from tanzim.data.synthesise.config import SynthesiseConfig
from tanzim.data.synthesise.known import Known
from tanzim.data.synthesise.seed import Seed, seed_of, shown
from tanzim.data.synthesise.write import Draft, with_shots, write_drafts

_AT_ONCE = 32  # drafts that go through all stages together
_SHOTS = 4  # texts of each class, or talks, that serve small models as worked examples
_SENTENCE = 4  # words of a sentence that a question is asked about


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
                seed = seed_of(example, self.config.make, self.config.max_characters)
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
        embed = self.powers.embed(config.embedding) if config.embedding else None
        drafts = self._drafts(surveys)
        for start in range(0, len(drafts), _AT_ONCE):
            block = [draft for _, _, draft in drafts[start : start + _AT_ONCE]]
            write_drafts(block, kept, checked, config, embed)
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

    def _drafts(self, surveys: Sequence[Survey]) -> list[tuple[int, Json, Draft]]:
        """Return what is to be written, with the number of its seed and the survey's line of it."""
        places, shots = self._places(surveys), self._shots(surveys)
        drafts = []
        for number, line in enumerate(_lines(surveys)):
            if not places[number]:
                continue
            seed = with_shots(Seed(*line["seed"]), shots)
            focuses = _focuses(seed, derive(self.seed, "focus", number))
            for copy in range(places[number]):
                focus = focuses[copy % len(focuses)]
                drafts.append((number, line, Draft(replace(seed, focus=focus), copy, {})))
        return drafts

    def _shots(self, surveys: Sequence[Survey]) -> list[tuple[str, str]]:
        """Return a few seeds of each class, drawn by chance, the classes in turn; for small models only.

        Raises:
            ConfigError: small models are to write what they cannot check.

        """
        if self.config.style == "full" or self.config.make == "questions":
            return []
        drawn: dict[str, list[tuple[int, str, str]]] = {}
        for number, line in enumerate(_lines(surveys)):
            if line["seed"]:
                shape, text, label, _ = line["seed"]
                if shape == "text":
                    raise _unchecked("texts without a label or a question")
                mine = drawn.setdefault(label, [])
                mine.append((derive(self.seed, "shot", number), text, label))
                mine.sort()
                del mine[_SHOTS:]
        if "" not in drawn and len(drawn) == 1:
            raise _unchecked("texts of one class only")
        rows = sorted(
            (place, rank, text, label) for m in drawn.values() for place, (rank, text, label) in enumerate(m)
        )
        return [(text, label) for _, _, text, label in rows]

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
                yield _example(example, value, f"{self.name} {copy}", self.config.model)


def _unchecked(what: str) -> ConfigError:
    return ConfigError(
        f"a small model has nothing to check {what} by",
        where="data.steps: synthesise",
        fix="set style: full, with a model that follows instructions",
    )


def _focuses(seed: Seed, chance: int) -> list[str]:
    """Return the sentences of a document that questions are asked about, in an order drawn by chance."""
    if not seed.document:
        return [""]
    whole = sentences(seed.text, guess(seed.text))
    found = [one for one in whole if len(one.split()) >= _SENTENCE] or whole
    return Random(chance).sample(found, len(found)) or [""]


def _example(seed: Example, value: Json, how: str, model: str) -> Example:
    """Return the example that a draft became; label, licence and system prompt are those of its seed."""
    new = derived(seed, how)
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
    return shown(draft.value) if draft.value else draft.detail


def _lines(surveys: Sequence[Survey]) -> Iterator[Json]:
    for survey in surveys:
        with survey.path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
