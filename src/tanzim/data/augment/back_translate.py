"""Texts that a language model translated and translated back (Sennrich, Haddow and Birch, ACL 2016)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tanzim.core.files import read_json, write_json
from tanzim.core.powers import Complete, Embed
from tanzim.core.records import Example, Json, Message, Progress
from tanzim.data.augment.adversarial import edited, with_text
from tanzim.data.augment.augmenter import draw_of, repeated
from tanzim.data.augment.config import BackTranslateConfig
from tanzim.data.augment.kept import KeptAnswers
from tanzim.data.balance.sample import derived
from tanzim.data.clean.linguistic import guess
from tanzim.data.ingest.rows import excerpt
from tanzim.data.similarity import normalise
from tanzim.data.step import Outcome, Survey, WholeStep

_AT_ONCE = 64  # texts that are translated there and back together
_SHOWN = 10  # translations that were not taken, and are shown
_LONGER = 2.0  # times that a text may grow or shrink on its way
_NAMES = {"en": "English", "fa": "Persian", "de": "German", "fr": "French", "es": "Spanish", "ar": "Arabic"}
_ASKED = "Translate the following text into {language}. Answer with the translation alone.\n\n{text}"
_NUMBER = re.compile(r"\d+")

# The number of an example and of its copy, its text, its language, and the language in between.
_Task = tuple[int, int, str, str, str]


def translated_back(
    texts: Sequence[str], languages: Sequence[str], through: Sequence[str], complete: Complete
) -> list[str]:
    """Return texts after a way into other languages and back; nothing for one that was lost on it.

    Args:
        texts: N texts.
        languages: the language of each, by its English name, [N].
        through: the language in between, of each, [N].
        complete: conversations → answers.

    """
    there = complete([_ask(text, way) for text, way in zip(texts, through, strict=True)])
    alive = [place for place, text in enumerate(there) if text.strip()]
    back = complete([_ask(there[place].strip(), languages[place]) for place in alive])
    found = [""] * len(texts)
    for place, text in zip(alive, back, strict=True):
        found[place] = text.strip()
    return found


def _ask(text: str, language: str) -> list[Message]:
    return [Message("user", _ASKED.format(language=language, text=text))]


def fault(text: str, back: str) -> str:
    """Say what is wrong with a text that came back; nothing if it may be taken."""
    if not normalise(back):
        return "said nothing"
    if normalise(back) == normalise(text):
        return "came out the same"
    if not len(text) / _LONGER <= len(back) <= len(text) * _LONGER:
        return "lost or added much"
    # int() reads Persian and Arabic digits too.
    if sorted(map(int, _NUMBER.findall(text))) != sorted(map(int, _NUMBER.findall(back))):
        return "changed a number"
    return "came back in another script" if guess(back) != guess(text) else ""


class BackTranslate(WholeStep[BackTranslateConfig]):
    """Make copies in other words by way of another language.

    Translated is the text, or of a conversation the user's last turn. A text that came back empty, the
    same, of twice or half the length, with other numbers, in another script, or (with ``embedding``) with
    another meaning is not taken; these are counted, and some of them shown.
    """

    training_only = True
    parallel = False

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the text and the language of each example that was drawn."""
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for example in examples:
                if (text := self._drawn(example)) is None:
                    file.write("null\n")
                    continue
                code = str(example.about.get("language") or guess(text))
                file.write(json.dumps([text, _NAMES.get(code, code)], ensure_ascii=False) + "\n")

    def _drawn(self, example: Example) -> str | None:
        """Return the text of an example that is to be translated; None of one that is left alone."""
        text = edited(example)
        drawn = draw_of(self.seed, example).random() < self.config.share
        return text if text and drawn and len(text) <= self.config.max_characters else None

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Ask for the translations; write what came back and may be taken, by the number of its example."""
        config = self.config
        answers = KeptAnswers(self.powers.complete(config.model), path.with_name("answers.jsonl"))
        embed = self.powers.embed(config.embedding) if config.embedding else None
        tasks = self._tasks(surveys)
        made: dict[str, Json] = {}
        findings: Json = {"asked for": len(tasks), "made": 0}
        for start in range(0, len(tasks), _AT_ONCE):
            block = tasks[start : start + _AT_ONCE]
            texts = [task[2] for task in block]
            back = translated_back(texts, [task[3] for task in block], [task[4] for task in block], answers)
            far = _far(texts, back, embed, config.min_similarity)
            for (number, copy, text, _, _), new, lost in zip(block, back, far, strict=True):
                why = fault(text, new) or lost
                if not why and new in made.get(str(number), {}).values():
                    why = "came out as another copy"
                if why:
                    findings[why] = findings.get(why, 0) + 1
                    shown = findings.setdefault("not taken", [])
                    if len(shown) < _SHOWN:
                        shown.append({"why": why, "text": excerpt(text), "back": excerpt(new)})
                else:
                    findings["made"] += 1
                    made.setdefault(str(number), {})[str(copy)] = new
            progress(start + len(block), len(tasks), "translating")
        write_json(path, made)
        return findings

    def _tasks(self, surveys: Sequence[Survey]) -> list[_Task]:
        tasks = []
        number = 0
        for survey in surveys:
            with survey.path.open(encoding="utf-8") as file:
                for line in file:
                    if found := json.loads(line):
                        ways = [way for way in self.config.through if way != found[1]]
                        for copy in range(1, self.config.copies + 1):
                            if ways:
                                tasks.append((number, copy, *found, ways[(copy - 1) % len(ways)]))
                    number += 1
        return tasks

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield each example, and what came back of it after it."""
        made = read_json(path)
        for number, example in enumerate(examples, first):
            yield example
            if self._drawn(example) is None:
                continue
            texts = made.get(str(number), {})
            for copy in range(1, self.config.copies + 1):
                how = f"{self.name} {copy}"
                if str(copy) in texts:
                    self.counts["made"] += 1
                    yield derived(with_text(example, texts[str(copy)]), how)
                elif again := repeated(example, self.config, how):
                    self.counts["repeated as it is"] += 1
                    yield again


def _far(texts: Sequence[str], back: Sequence[str], embed: Embed | None, least: float) -> list[str]:
    """Say of each text whether it came back with another meaning."""
    if embed is None:
        return [""] * len(texts)
    one, two = embed(texts), embed([text or "-" for text in back])
    return ["" if float(a @ b) >= least else "lost the meaning" for a, b in zip(one, two, strict=True)]
