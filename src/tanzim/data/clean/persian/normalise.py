"""A Persian text as it should be written."""

from __future__ import annotations

from tanzim.data.clean.config import PersianConfig
from tanzim.data.clean.persian.joins import CutWords, unreversed, unwrapped
from tanzim.data.clean.persian.letters import (
    letter_pairs,
    marked,
    replaced,
    shapes_to_letters,
    without_kashida,
    without_marks,
)
from tanzim.data.clean.persian.lexicon import Lexicon
from tanzim.data.clean.persian.punctuation import signs, spaces
from tanzim.data.clean.persian.script import ARABIC_SCRIPT, Holes, judged, runs
from tanzim.data.clean.persian.spacing import HalfSpaces, tidy

_PASSES = 8  # three were needed at most in a million random texts


class Normaliser:
    """Makes Persian texts whole after a config; texts of other languages stay as they are.

    Doing it twice is doing it once: what one rule writes another may read (a digit made Latin belongs to the
    Latin word behind it), so the rules are applied until they change nothing, and a text on which they never
    agree stays as it is. Latin words, code, addresses, tags, JSON, emoji and verses in ﴿﴾ stay as
    they are, as do lines of another language in a Persian text.

    Args:
        config: what is changed and what kept.
        lexicon: counts of the corpus for doubtful words (see `Lexicon`); None for the rules alone.

    """

    def __init__(self, config: PersianConfig, lexicon: Lexicon | None = None) -> None:
        self._config = config
        self._pairs = letter_pairs(config.letters, config.digits)
        self._halves = HalfSpaces(lexicon, config.phrases == "join")
        self._cut = CutWords(lexicon) if lexicon is not None and config.cut_words else None

    def __call__(self, text: str) -> str:
        """Return the text as it should be written."""
        if not ARABIC_SCRIPT.search(text):
            return text
        now = text
        for _ in range(_PASSES):
            new = self._once(now)
            if new == now:
                return now
            now = new
        return text

    def _once(self, text: str) -> str:
        config = self._config
        plain, words = text, runs(text)
        if config.reversed_lines and not config.lossless:
            plain = unreversed(plain, words)
        if config.letters:
            plain = shapes_to_letters(plain)
        persian, apart = judged(plain, words if plain == text else None)
        if not persian:
            return text
        if config.line_wraps == "join" and not config.lossless:
            plain = unwrapped(plain)
            apart = judged(plain)[1]
        if not config.change_marked:
            apart += marked(plain)
        holes = Holes(plain, apart)
        inner = replaced(holes.text, self._pairs)
        return holes.fill(inner if config.lossless else self._repaired(inner))

    def _repaired(self, text: str) -> str:
        config = self._config
        text = without_marks(text, config.diacritics)
        if config.kashida == "remove":
            text = without_kashida(text)
        if config.half_spaces:
            text = tidy(text)
        if config.punctuation != "latin":
            text = signs(text, config.punctuation)
        if config.spaces:
            text = spaces(text)
        if config.punctuation == "latin":
            text = signs(
                text, "latin"
            )  # the spaces are set by the Persian signs, which say what belongs to what
        if self._cut is not None:
            text = self._cut.repair(text)
        return self._halves.repair(text) if config.half_spaces else text


def normalise(text: str, config: PersianConfig | None = None, lexicon: Lexicon | None = None) -> str:
    """Return a Persian text with its letters, half-spaces and punctuation as they should be.

    Args:
        text: a text; if it is not Persian, it comes back as it is.
        config: what is changed; unset for the defaults.
        lexicon: counts of a corpus for doubtful words.

    """
    return Normaliser(config or PersianConfig(), lexicon)(text)
