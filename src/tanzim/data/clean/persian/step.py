"""The step `persian`: Persian texts as they should be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tanzim.core.records import Example, Json, Progress
from tanzim.data.clean.config import PersianConfig
from tanzim.data.clean.persian.lexicon import Lexicon, learn
from tanzim.data.clean.persian.normalise import Normaliser
from tanzim.data.clean.persian.script import ZWNJ
from tanzim.data.step import Outcome, Survey, WholeStep
from tanzim.data.texts import read, rewrite


class Persian(WholeStep[PersianConfig]):
    """Write Persian texts as they should be written; nothing is removed.

    Texts, and what users, assistants and the system say and think, are changed. Tool calls, tool results and
    tool definitions stay (programs read them), and so do tagged words (each has its tag) and labels.
    """

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Count the words of a shard, if the corpus is asked."""
        lexicon = Lexicon()
        if self.config.lexicon == "corpus":
            lexicon = learn(read(example) for example in examples if example.kind != "tagged")
        lexicon.save(path)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Add the counts up."""
        whole = Lexicon()
        for done, survey in enumerate(surveys):
            progress(done, len(surveys), "counting words")
            whole.add(Lexicon.load(survey.path))
        whole = whole.trimmed()
        whole.save(path)
        if self.config.lexicon == "rules":
            return {}
        return {"words": len(whole.words), "words with a half-space": len(whole.halves)}

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield each example, its texts repaired."""
        lexicon = Lexicon.load(path) if self.config.lexicon == "corpus" else None
        return self._each(examples, Normaliser(self.config, lexicon))

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, its texts repaired; with lexicon corpus, the examples given are the corpus."""
        if self.config.lexicon == "rules":
            return self._each(examples, Normaliser(self.config))
        kept = list(examples)
        lexicon = learn(read(example) for example in kept if example.kind != "tagged").trimmed()
        return self._each(kept, Normaliser(self.config, lexicon))

    def _each(self, examples: Iterable[Example], normaliser: Normaliser) -> Iterator[Outcome]:
        def change(text: str) -> str:
            new = normaliser(text)
            if new != text:
                self.counts["texts changed"] += 1
                self.counts["half-spaces put in"] += max(0, new.count(ZWNJ) - text.count(ZWNJ))
            return new

        for example in examples:
            yield rewrite(example, change)
