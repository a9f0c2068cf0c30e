"""Texts that repeat themselves, and phrases that recur over many examples."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Example, Json, Progress
from tanzim.data.clean.config import RepetitionConfig
from tanzim.data.clean.linguistic import stop_words
from tanzim.data.clean.recurring import examples_of, hashed, merge_counts, write_counts
from tanzim.data.step import Outcome, Removed, Survey, WholeStep
from tanzim.data.texts import learned, parts

_WORD = re.compile(r"[^\W_]+(?:['’\u200c-][^\W_]+)*")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"[.!?؟۔…\n]+")
_LONGEST_PERIOD = 20
_SHOWN = 1000  # phrases that the report may name
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd: 2^64 / golden ratio

Ids = npt.NDArray[np.uint64]


def repeats(text: str, config: RepetitionConfig) -> tuple[str, str] | None:
    """Return why a text counts as repeating itself (rule, number), or None.

    Lines, paragraphs and runs of words as in Gopher (Rae et al., 2021, arXiv:2112.11446, table A1); besides,
    words and phrases that follow themselves, which is what a model in a loop writes (Holtzman et al., 2020,
    arXiv:1904.09751). Words are counted without punctuation; a word with a half-space is one.
    """
    words = _WORD.findall(text)
    if (found := _runs(text, words, config)) or len(words) < config.min_words:
        return found
    return _shares_of_lines(text, config) or _shares_of_words(text, words, config)


def _runs(text: str, words: Sequence[str], config: RepetitionConfig) -> tuple[str, str] | None:
    most = config.max_character_run
    if most is not None and (match := re.search(rf"([^\W_])\1{{{most},}}", text)):
        return "a character that follows itself", f"{len(match.group())} times {match[1]}"
    ids = _ids(words)
    for period in range(1, min(_LONGEST_PERIOD, len(words) // 2) + 1):
        most = config.max_word_run if period == 1 else config.max_phrase_run
        if most is None:
            continue
        length, end = _longest(ids[period:] == ids[:-period])
        times = length // period + 1
        if times > most:
            phrase = " ".join(words[end - period : end])
            return (
                "a word" if period == 1 else "a phrase"
            ) + " that follows itself", f"{times} times {phrase}"
    return None


def _ids(words: Sequence[str]) -> Ids:
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))


def _longest(same: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the length of the longest run of True, and where it ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]])))
    if not len(edges):
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    best = int(lengths.argmax())
    return int(lengths[best]), int(edges[2 * best + 1])


def _shares_of_lines(text: str, config: RepetitionConfig) -> tuple[str, str] | None:
    for name, pieces, most, most_characters in (
        (
            "paragraphs",
            _PARAGRAPHS.split(text),
            config.duplicate_paragraphs,
            config.duplicate_paragraph_characters,
        ),
        ("lines", text.split("\n"), config.duplicate_lines, config.duplicate_line_characters),
    ):
        said = [piece.strip() for piece in pieces if piece.strip()]
        again = list((Counter(said) - Counter(set(said))).elements())
        if most is not None and len(again) > most * len(said):
            return f"repeated {name}", f"{len(again) / len(said):.2f} of the {name}"
        characters = sum(map(len, again))
        if most_characters is not None and characters > most_characters * len(text):
            return f"characters in repeated {name}", f"{characters / len(text):.2f} of the text"
    return None


def _shares_of_words(text: str, words: Sequence[str], config: RepetitionConfig) -> tuple[str, str] | None:
    ids = _ids(words)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    total = np.concatenate([[0], np.cumsum(lengths)])
    for n, most in config.top_ngrams.items():
        if len(words) < n:
            continue
        _, first, counts = np.unique(_ngrams(ids, n), return_index=True, return_counts=True)
        top = counts.max()
        at = int(first[counts == top].min())
        share = int(top) * int(total[at + n] - total[at] + n - 1) / len(text)
        if top > 1 and share > most:
            return (
                f"one run of {n} words again and again",
                f"{' '.join(words[at : at + n])}: {share:.2f} of the text",
            )
    for n, most in config.duplicate_ngrams.items():
        if len(words) < n:
            continue
        share = _repeated(_ngrams(ids, n), total, n) / len(text)
        if share > most:
            return f"repeated runs of {n} words", f"{share:.2f} of the text"
    return None


def _ngrams(ids: Ids, n: int) -> Ids:
    """Return a hash of each run of n words, [W - n + 1]."""
    out = np.zeros(len(ids) - n + 1, np.uint64)
    for place in range(n):
        out = (out ^ ids[place : len(ids) - n + 1 + place]) * np.uint64(_MULTIPLIER)
        out ^= out >> np.uint64(29)
    return out


def _repeated(ngrams: Ids, total: npt.NDArray[np.int64], n: int) -> int:
    """Return the characters in runs that repeat an earlier one, none counted twice."""
    if len(np.unique(ngrams)) == len(ngrams):
        return 0
    seen: set[int] = set()
    repeated, at = 0, 0
    values = ngrams.tolist()
    while at < len(values):
        if values[at] in seen:
            repeated += int(total[at + n] - total[at])
            at += n
        else:
            seen.add(values[at])
            at += 1
    return repeated


def phrases_of(texts: Iterable[str], beginning: int, anywhere: int) -> list[str]:
    """Return the phrases of one example, in order: openings of sentences (marked ^), and runs of words.

    An opening with stop words alone ("this is a") is no phrase.

    Args:
        texts: what a model learns to say.
        beginning: words of an opening.
        anywhere: words of a run.

    """
    dull = stop_words("en") | stop_words("fa")
    found = []
    for text in texts:
        for sentence in _SENTENCE.split(text):
            words = [word.casefold() for word in _WORD.findall(sentence)]
            if len(words) >= beginning and not dull.issuperset(words[:beginning]):
                found.append("^" + " ".join(words[:beginning]))
            found += [" ".join(words[at : at + anywhere]) for at in range(len(words) - anywhere + 1)]
    return found


class Repetition(WholeStep[RepetitionConfig]):
    """Take out what repeats itself; name, or thin out, phrases that many examples share.

    A phrase that a model reads in many answers ("This article suggests …") is one that it will say in many.
    Phrases are looked for in what a model learns to say alone: documents, answers, preferred answers.
    """

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the phrases of a shard, with the number of examples each stands in."""
        look = self.config.phrases != "off"
        write_counts(
            path, (hashed(self._phrases(one)) if look else set() for one in examples if learned(one))
        )

    def _phrases(self, example: Example) -> list[str]:
        return phrases_of(learned(example), *self.config.phrase_words)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write the hashes of the phrases that recur, their counts, and the count that is allowed."""
        paths = [survey.path for survey in surveys]
        examples = examples_of(paths)
        allowed = max(self.config.phrase_examples, int(self.config.phrase_share * examples))
        hashes, counts = merge_counts(paths, allowed + 1, progress)
        verdict = np.zeros((2, len(hashes) + 1), np.uint64)
        verdict[0, :-1], verdict[1, :-1], verdict[1, -1] = hashes, counts, allowed
        with path.open("wb") as file:
            np.save(file, verdict)
        return {"examples": examples, "allowed": allowed, "phrases": len(hashes)}

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what repeats itself, and what carries a phrase too many."""
        hashes, numbers = np.load(path).tolist()
        allowed = numbers.pop()
        recurring = dict(zip(hashes, numbers, strict=False))
        for example in examples:
            if found := next(filter(None, (repeats(part, self.config) for part in parts(example))), None):
                yield Removed(example, *found)
            elif (
                recurring
                and (phrase := self._carried(example, recurring))
                and self._drawn(example, phrase, allowed)
            ):
                yield Removed(example, "a phrase that too many examples share", phrase[0])
            else:
                yield example

    def _carried(self, example: Example, recurring: dict[int, int]) -> tuple[str, int] | None:
        """Count the phrases of an example that recur; return the most frequent one and its number."""
        found: Counter[str] = Counter()
        for phrase in dict.fromkeys(self._phrases(example)):
            number = recurring.get(next(iter(hashed((phrase,)))))
            if number:
                found[phrase] = number
        for phrase in _merged(found):
            name = f"phrase: {phrase}"
            if name in self.counts or len(self.counts) < _SHOWN:
                self.counts[name] += 1
        return found.most_common(1)[0] if found else None

    def _drawn(self, example: Example, phrase: tuple[str, int], allowed: int) -> bool:
        """Return whether an example is one of those that are too many, by a draw of its own."""
        if self.config.phrases != "thin":
            return False
        drawn = hashlib.blake2b(f"{self.seed} {example.provenance}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "little") / 2**64 >= allowed / phrase[1]


def _merged(phrases: Iterable[str]) -> list[str]:
    """Join runs of words that overlap but for one word, as a longer phrase has many of them."""
    out: list[str] = []
    for phrase in phrases:
        words = phrase.split(" ")
        if out and not phrase.startswith("^") and out[-1].split(" ")[-len(words) + 1 :] == words[:-1]:
            out[-1] += f" {words[-1]}"
        else:
            out.append(phrase)
    return out
