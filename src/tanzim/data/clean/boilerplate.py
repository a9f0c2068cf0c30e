"""Lines that recur in many documents: navigation, cookie notices, copyright lines."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tanzim.core.records import Example, Json, Progress
from tanzim.data.clean.config import BoilerplateConfig
from tanzim.data.clean.recurring import examples_of, hashed, merge_counts, write_counts
from tanzim.data.step import Outcome, Removed, Survey, WholeStep

_DIGITS = re.compile(r"\d+")
_SHOWN = 1000  # lines that the report may name


def compared_line(line: str, max_words: int = 30) -> str:
    """Return a line as it is compared (case, numbers and marks make no difference), "" for one that is not.

    Not compared are lines without a letter (rules, brackets), longer ones, and indented ones (programs).
    """
    if line[:1] in (" ", "\t") or not any(map(str.isalpha, line)):
        return ""
    folded = _DIGITS.sub("0", unicodedata.normalize("NFKC", line).casefold())
    words = re.findall(r"[\w\u200c]+", folded)
    return " ".join(words) if len(words) <= max_words else ""


class Boilerplate(WholeStep[BoilerplateConfig]):
    """Cut recurring lines out of documents; conversations and labelled texts stay as they are.

    The mark of a line is the number of documents it stands in, as in the line removal of CCNet
    (Wenzek et al., 2020, arXiv:1911.00359), which drops every repeated paragraph.
    """

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the lines of a shard, with the number of documents each stands in."""
        documents = (hashed(self._lines(example)) for example in examples if example.kind == "text")
        write_counts(path, documents)

    def _lines(self, example: Example) -> set[str]:
        lines = example.text.split("\n")
        if len(lines) == 1:  # all that there is
            return set()
        return {key for line in lines if (key := compared_line(line, self.config.max_words))}

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write the hashes of the lines that recur, sorted."""
        paths = [survey.path for survey in surveys]
        documents = examples_of(paths)
        least = max(self.config.min_documents, int(np.ceil(self.config.min_share * documents)))
        hashes, counts = merge_counts(paths, least, progress)
        with path.open("wb") as file:
            np.save(file, hashes)
        most = int(counts.max(initial=0))
        return {"documents": documents, "least": least, "lines": len(hashes), "most": most}

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Cut the lines that recur; remove documents that were nothing else."""
        recurring = set(np.load(path).tolist())
        for example in examples:
            if not recurring or example.kind != "text":
                yield example
                continue
            text = self._cut(example.text, recurring)
            if text.strip() or not example.text.strip():
                yield example if text == example.text else replace(example, text=text)
            else:
                yield Removed(example, "nothing but lines that recur in other documents")

    def _cut(self, text: str, recurring: set[int]) -> str:
        lines = text.split("\n")
        if len(lines) == 1:
            return text
        kept = []
        for line in lines:
            key = compared_line(line, self.config.max_words)
            if key and next(iter(hashed((key,)))) in recurring:
                self.counts["lines cut"] += 1
                if len(self.counts) < _SHOWN:
                    self.counts[f"line: {json.dumps(line.strip()[:100], ensure_ascii=False)}"] += 1
            else:
                kept.append(line)
        return text if len(kept) == len(lines) else re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")
