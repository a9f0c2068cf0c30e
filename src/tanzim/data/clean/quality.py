"""Documents of fair quality, by the rules of Gopher, C4 and FineWeb."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tanzim.core.records import Example
from tanzim.data.clean.config import QualityConfig, QualityRules
from tanzim.data.clean.linguistic import guess, sentences
from tanzim.data.step import Outcome, Removed, Step
from tanzim.data.texts import read

# Gopher's eight, and the eight most frequent words of Persian.
_STOP = {
    "en": frozenset(("the", "be", "to", "of", "and", "that", "have", "with")),
    "fa": frozenset(("و", "در", "به", "از", "که", "این", "را", "با")),
}
_WORD = re.compile(r"[^\W_]+(?:['’\u200c.,-][^\W_]+)*")
_BULLETS = ("•", "-", "‣", "●", "▪", "*", "–")
_END = re.compile(r"[.!?؟۔。！？।॥…][\"'”’»)\]]*$")
_POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
    "سیاست حفظ حریم خصوصی", "حریم خصوصی کاربران", "شرایط استفاده از", "قوانین و مقررات سایت",
    "کوکی‌ها استفاده", "کوکی ها استفاده", "استفاده از کوکی",
)  # fmt: skip
_SCRIPT = ("javascript", "جاوااسکریپت", "جاوا اسکریپت")
_LOREM = ("lorem ipsum", "لورم ایپسوم")
_CITATION = re.compile(r"\[\d*\]|\[(?:edit|citation needed|ویرایش|نیازمند منبع)\]")
_ARABIC = str.maketrans("يك", "یک")


def poor_quality(text: str, rules: QualityRules, language: str = "en") -> tuple[str, str] | None:
    """Return which rule a document breaks first (reason, number), or None.

    Args:
        text: the document.
        rules: the thresholds (see `QualityRules` for the paper each is from).
        language: ISO 639-1 code; stop words are known for en and fa alone.

    """
    words = _WORD.findall(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    stop = _STOP.get(language, frozenset())
    least = rules.min_words is not None and len(words) < rules.min_words
    if least or (rules.max_words is not None and len(words) > rules.max_words):
        return ("too few words" if least else "too many words"), f"{len(words)}"
    if not words:
        return None
    for reason, fewest, most, value, unit in _measures(text, words, lines, rules):
        if (fewest is not None and value < fewest) or (most is not None and value > most):
            return reason, f"{value:.2f} {unit}"
    if rules.min_stop_words is not None and stop:
        present = len(stop.intersection(text.lower().translate(_ARABIC).split()))
        if present < rules.min_stop_words:
            return "too few stop words", f"{present}"
    return _of_c4(text, rules, language)


_Bound = float | None


def _measures(
    text: str, words: list[str], lines: list[str], rules: QualityRules
) -> Iterator[tuple[str, _Bound, _Bound, float, str]]:
    """Yield (reason, lower bound, upper bound, value, unit) of each rule, Gopher's before FineWeb's."""
    each, of_lines, on_average = "for each word", "of the lines", "characters on average"
    mean = sum(map(len, words)) / len(words)
    yield "words too short", rules.min_word_characters, None, mean, on_average
    yield "words too long", None, rules.max_word_characters, mean, on_average
    yield "too many # signs", None, rules.max_hashes, text.count("#") / len(words), each
    ellipses = (text.count("...") + text.count("…")) / len(words)
    yield "too many ellipses", None, rules.max_ellipses, ellipses, each
    bullets = sum(line.startswith(_BULLETS) for line in lines)
    yield "too many bullet points", None, rules.max_bullet_lines, bullets / len(lines), of_lines
    open_ends = sum(line.endswith(("...", "…")) for line in lines)
    yield "too many open ends", None, rules.max_ellipsis_lines, open_ends / len(lines), of_lines
    spaced = text.split()
    alphabetic = sum(any(map(str.isalpha, word)) for word in spaced) / len(spaced)
    yield "too few words with letters", rules.min_alphabetic_words, None, alphabetic, "of the words"
    enough = len(lines) >= rules.min_lines
    ended = sum(_END.search(line[-8:]) is not None for line in lines) / len(lines)
    yield (
        "too few lines that end a sentence",
        rules.min_punctuated_lines if enough else None,
        None,
        ended,
        of_lines,
    )
    short = sum(len(line) <= rules.short_line_characters for line in lines)
    yield (
        "too many short lines",
        None,
        rules.max_short_lines if enough else None,
        short / len(lines),
        of_lines,
    )
    repeated = sum(len(line) * (count - 1) for line, count in Counter(lines).items())
    share = repeated / (len(text) - text.count("\n"))
    yield "too many characters in repeated lines", None, rules.max_duplicate_characters, share, "of the text"
    ends = text.count("\n") / len(words)
    yield "a list rather than a text", None, rules.max_newlines, ends, "line ends for each word"


def _of_c4(text: str, rules: QualityRules, language: str) -> tuple[str, str] | None:
    lowered = text.lower().translate(_ARABIC)
    if rules.lorem_ipsum and any(words in lowered for words in _LOREM):
        return "placeholder text", "lorem ipsum"
    if rules.curly_bracket and "{" in text:
        return "a curly bracket", ""
    if rules.min_sentences is not None:
        number = sum(len(sentences(line, language)) for line in text.split("\n"))
        if number < rules.min_sentences:
            return "too few sentences", f"{number}"
    return None


def cut_lines(text: str, config: QualityConfig, counts: Counter[str] | None = None) -> str:
    """Return a document without the lines that C4 cuts (Raffel et al., 2020); or the same text.

    Args:
        text: the document.
        config: which lines are cut.
        counts: what was cut is added here.

    """
    kept = []
    found: Counter[str] = Counter()
    for line in text.split("\n"):
        if config.citations and "[" in line:
            line, number = _CITATION.subn("", line)  # noqa: PLW2901 - the same line
            found["citation marks cut"] += number
        reason = _line_fault(line.strip(), config)
        if reason:
            found[f"lines cut: {reason}"] += 1
        else:
            kept.append(line)
    if counts is not None:
        counts.update(+found)
    return "\n".join(kept).strip("\n") if found.total() else text


def _line_fault(line: str, config: QualityConfig) -> str:
    if not line:
        return ""
    words, lowered = line.split(), line.lower().translate(_ARABIC)
    faults = {
        "a run of characters without a space": config.max_token_characters is not None
        and max(map(len, words)) > config.max_token_characters,
        "no punctuation at the end": config.unpunctuated_lines
        and (not line.endswith((".", "?", "!", '"', "'", "؟", "»", "”", "۔")) or line.endswith("...")),
        "few words": config.min_line_words is not None and len(words) < config.min_line_words,
        "JavaScript": config.javascript_lines and any(one in lowered for one in _SCRIPT),
        "policy": config.policy_lines and any(one in lowered for one in _POLICY),
    }
    return next((name for name, holds in faults.items() if holds), "")


class Quality(Step[QualityConfig]):
    """Cut poor lines, and remove poor documents, each under the rule that it breaks."""

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, or its removal."""
        for example in examples:
            if example.kind not in self.config.kinds:
                self.counts["not judged"] += 1
                yield example
                continue
            text = example.text
            if example.kind == "text":
                text = cut_lines(text, self.config, self.counts)
                if example.text.strip() and not text.strip():
                    yield Removed(example, "nothing but lines that are cut")
                    continue
            judged = text if example.kind == "text" else read(example)
            language = str(example.about.get("language") or guess(judged))
            found = poor_quality(judged, self._rules(language), language)
            if found:
                yield Removed(example, *found)
            else:
                yield example if text == example.text else replace(example, text=text)

    def _rules(self, language: str) -> QualityRules:
        return self.config.persian if language == "fa" else self.config.rules
