"""Toxic text, as a scorer judges it; what the scorer does not understand is left and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from tanzim.core.records import Example
from tanzim.data.screen.config import ToxicityConfig
from tanzim.data.screen.detect import language_of
from tanzim.data.step import Outcome, Removed, Step

_TOGETHER = 256  # examples judged at once


class Toxicity(Step[ToxicityConfig]):
    """Take out or mark examples of which a turn is toxic in a category.

    Tool calls, thinking and tags are not judged. The language is ``about.language``, or
    what the letters show.
    """

    parallel = False

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example as it is, marked, or its removal."""
        judge, waiting = self.powers.judge(self.config.model), iter(examples)
        while batch := list(islice(waiting, _TOGETHER)):
            wanted = [self._judged(example) for example in batch]
            texts = list(dict.fromkeys(text for some in wanted for text in some))
            scores = dict(zip(texts, judge(texts), strict=True)) if texts else {}
            for example, some in zip(batch, wanted, strict=True):
                yield self._decide(example, [scores[text] for text in some])

    def _judged(self, example: Example) -> list[str]:
        """Return the texts of an example that are to be judged and that the scorer understands."""
        if example.kind in ("text", "labelled", "tagged"):
            texts = [example.text]
        else:
            answers = self.config.turns == "answers"
            texts = [turn.content for turn in example.turns if not answers or turn.role == "assistant"]
        known = [text for text in texts if text.strip() and self._knows(text, example)]
        if any(text.strip() for text in texts) and not known:
            self.counts["not judged: in another language"] += 1
        return known

    def _knows(self, text: str, example: Example) -> bool:
        known = self.config.languages
        return not known or str(example.about.get("language") or language_of(text)) in known

    def _decide(self, example: Example, scores: list[Mapping[str, float]]) -> Outcome:
        most: dict[str, float] = {}
        for one in scores:
            for category, value in one.items():
                most[category] = max(most.get(category, 0.0), value)
        limits = self.config.thresholds
        toxic = {
            category: value
            for category, value in most.items()
            if value >= limits.get(category, self.config.threshold)
        }
        self.counts.update(toxic.keys())
        if toxic and self.config.action == "drop":
            worst = max(toxic, key=lambda category: toxic[category])
            return Removed(example, f"toxic: {worst}", ", ".join(f"{c} {v:.2f}" for c, v in toxic.items()))
        if self.config.action == "mark" and most:
            marks = {category: round(value, 4) for category, value in most.items()}
            return replace(example, about={**example.about, "toxicity": marks})
        return example
