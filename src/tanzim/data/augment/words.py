"""Words swapped, left out, split, in other case, or replaced by near ones of the training data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

import numpy as np

from tanzim.core.errors import ConfigError
from tanzim.core.files import read_json, sha256, write_json
from tanzim.core.powers import Embed
from tanzim.core.records import Example, Json, Progress
from tanzim.data.augment.augmenter import Augmenter, bound, open_to_change, reword
from tanzim.data.augment.config import AugmentWordsConfig
from tanzim.data.balance.points import nearest_neighbours
from tanzim.data.clean.linguistic import guess, stop_words
from tanzim.data.similarity import normalise
from tanzim.data.step import Outcome, Survey, WholeStep

_AT_ONCE = 1024  # words that are embedded at a time
_CORE = re.compile(r"[^\W\d_]+(?:[\u200c'’-][^\W\d_]+)*")  # a word without the marks around it
_KEPT = re.compile(r"[\d@/\\<>{}\[\]_=#]")
_SHORTEST = 4  # letters of a word that may be split; one letter fewer may be replaced
_OFTEN = 2  # times a word stands in the texts, to be one that replaces others
_UNKNOWN = None  # the label of words that stand in texts without labels only

Near = Mapping[str, Sequence[str]]


def change_words(text: str, rng: Random, *, rate: float, operations: Sequence[str], near: Near) -> str:
    """Return a text with a few words changed; white space stays where it was.

    Numbers, addresses, placeholders and markup stay as they are.

    Args:
        text: any text.
        rng: where chance comes from.
        rate: share of the words that may be touched; a swap touches two, and may always be one swap.
        operations: of `AugmentWordsConfig`.
        near: word in small letters → words that may stand for it.

    """
    parts = re.split(r"(\s+)", text)
    places = [n for n in range(0, len(parts), 2) if parts[n] and not _KEPT.search(parts[n])]
    free = set(places)
    gone: set[int] = set()
    left = bound(rate, len(places))
    for place in rng.sample(places, len(places)):
        if left <= 0:
            break
        operation = rng.choice(operations)
        if operation == "swap":
            other = place + 2
            if {place, other} <= free and parts[other] != parts[place]:
                parts[place], parts[other] = parts[other], parts[place]
                free -= {place, other}
                left -= 2
        elif operation == "delete":
            if place in free and len(gone) < len(places) - 1:
                gone.add(place)
                free.discard(place)
                left -= 1
        elif place in free:
            new = _other_word(parts[place], rng, operation, near)
            left -= new != parts[place]
            parts[place] = new
            free.discard(place)
    found = "".join(
        parts[place] + "".join(parts[place + 1 : place + 2])
        for place in range(0, len(parts), 2)
        if place not in gone
    )
    return found.rstrip() if len(parts) - 1 in gone else found


def _other_word(word: str, rng: Random, operation: str, near: Near) -> str:
    core = _CORE.search(word)
    if core is None:
        return word
    before, after = word[: core.start()], word[core.end() :]
    inner = core[0]
    if operation == "split":
        return before + _split(inner, rng) + after
    if operation == "case":
        forms = sorted({inner.upper(), inner.lower(), inner.capitalize(), inner.swapcase()} - {inner})
        return before + rng.choice(forms) + after if forms else word
    fitting = near.get(inner.lower(), ())
    if not fitting:
        return word
    new = rng.choice(fitting)
    if inner.isupper() and len(inner) > 1:
        new = new.upper()
    elif inner[0].isupper():
        new = new.capitalize()
    return before + new + after


def _split(word: str, rng: Random) -> str:
    if "\u200c" in word:
        return word.replace("\u200c", " ", 1)
    if len(word) < _SHORTEST or not word.isalpha():
        return word
    at = rng.randrange(1, len(word))
    return f"{word[:at]} {word[at:]}"


def near_words(
    words: Sequence[str],
    embed: Embed,
    *,
    neighbours: int,
    min_similarity: float,
    fits: Callable[[int, int], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, list[str]]:
    """Return for each word the nearest others, nearest first; words without any are left out.

    Args:
        words: V different words in small letters.
        embed: words → [V, D], rows of length 1.
        neighbours: most words for one.
        min_similarity: cosine below which a word is not near.
        fits: tells of two words, by their numbers, whether the second may stand for the first.
        progress: told the words done.

    """
    found = {}
    blocks = []
    for start in range(0, len(words), _AT_ONCE):
        blocks.append(embed(words[start : start + _AT_ONCE]))
        if progress:
            progress(min(start + _AT_ONCE, len(words)), len(words), "embedding words")
    vectors_VD = np.concatenate(blocks)
    # More than are wanted: some of the nearest do not fit.
    nearest_VK = nearest_neighbours(vectors_VD, min(4 * neighbours, len(words) - 1))
    for place, others in enumerate(nearest_VK.tolist()):
        similar = [
            words[other]
            for other in others
            if float(vectors_VD[other] @ vectors_VD[place]) >= min_similarity
            and (fits is None or fits(place, other))
            and normalise(words[other]) != normalise(words[place])
        ]
        if similar:
            found[words[place]] = similar[:neighbours]
    return found


@dataclass(frozen=True, slots=True)
class _Word:
    """A word, its script, the label under which it is most common, and whether it may replace others."""

    text: str
    script: str
    label: str | None
    often: bool


def _words_of(path: str) -> Counter[str]:
    """Count the words of a text file.

    Raises:
        ConfigError: it cannot be read.

    """
    counts: Counter[str] = Counter()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                counts.update(word.lower() for word in _CORE.findall(line))
    except OSError as error:
        raise ConfigError(
            f"the texts cannot be read ({error.strerror})",
            where=f"data.steps: augment_words, more_texts: {path}",
            fix="give a text file, or leave more_texts out",
        ) from None
    return counts


class AugmentWords(Augmenter[AugmentWordsConfig], WholeStep[AugmentWordsConfig]):
    """Make copies with words changed.

    A near word may mean the opposite: embeddings of words put "good" beside "bad". Where examples have
    labels, a word is therefore only replaced by one that is most common under the same label, or (with
    ``more_texts``) by one that the labelled examples do not have.
    """

    _near: Near = MappingProxyType({})

    @classmethod
    def outside(cls, config: AugmentWordsConfig) -> list[str]:
        """Return the fingerprint of the file of more texts."""
        path = Path(config.more_texts) if config.more_texts else None
        return [sha256(path)] if path and path.is_file() else []

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write how often each word stands in the texts of each label."""
        counts: dict[str, Counter[str]] = {}
        if "neighbour" in self.config.operations:
            for example in filter(open_to_change, examples):
                seen = counts.setdefault(example.label, Counter())

                def count(text: str, seen: Counter[str] = seen) -> str:
                    seen.update(word.lower() for word in _CORE.findall(text))
                    return text

                reword(example, count)
        path.write_text(json.dumps(counts, ensure_ascii=False), encoding="utf-8")

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write for each frequent word the words that may stand for it."""
        if "neighbour" not in self.config.operations:
            write_json(path, {})
            return {}
        if not self.config.embedding:
            raise ConfigError(
                "the operation neighbour needs an embedding model",
                where="data.steps: augment_words",
                fix="name one in embedding, such as all-minilm-l6-v2, or leave neighbour out",
            )
        words = self._vocabulary(surveys)
        near: dict[str, list[str]] = {}
        if len(words) > 1:

            def fits(place: int, other: int) -> bool:
                one, two = words[place], words[other]
                apart = two.label not in (one.label, _UNKNOWN)
                return two.often and two.script == one.script and not apart

            near = near_words(
                [word.text for word in words],
                self.powers.embed(self.config.embedding),
                neighbours=self.config.neighbours,
                min_similarity=self.config.min_similarity,
                fits=fits,
                progress=progress,
            )
            own = {word.text for word in words if word.label != _UNKNOWN}
            near = {word: others for word, others in near.items() if word in own}
        write_json(path, near)
        shown = dict(list(near.items())[:10])
        return {"words": len(words), "words with near ones": len(near), "such as": shown}

    def _vocabulary(self, surveys: Sequence[Survey]) -> list[_Word]:
        """Return words that may be replaced, or replace: those of the data, then those of more texts."""
        by_label: dict[str, Counter[str]] = {}
        for survey in surveys:
            for label, counts in read_json(survey.path).items():
                by_label.setdefault(label, Counter()).update(counts)
        own: Counter[str] = sum(by_label.values(), Counter())
        more = _words_of(self.config.more_texts) if self.config.more_texts else Counter[str]()
        stop = stop_words("en") | stop_words("fa")
        fit = [
            (word not in own, -times, word)
            for word, times in (own + more).items()
            if (word in own or times >= _OFTEN) and len(word) >= _SHORTEST - 1 and word not in stop
        ]
        sizes = {label: counts.total() for label, counts in by_label.items()}
        words = []
        for foreign, times, word in sorted(fit)[: self.config.vocabulary]:
            label = max(sorted(by_label), key=lambda one: by_label[one][word] / max(1, sizes[one]))
            words.append(_Word(word, guess(word), _UNKNOWN if foreign else label, -times >= _OFTEN))
        return words

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield each example, and its copies after it."""
        del first
        self._near = read_json(path)
        yield from self.apply(examples)

    def change(self, text: str, rng: Random) -> str:
        """Return the text with a few words changed."""
        config = self.config
        return change_words(text, rng, rate=config.rate, operations=config.operations, near=self._near)
