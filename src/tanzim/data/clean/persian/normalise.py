"""A Persian text as it should be written."""

from __future__ import annotations

from tanzim.data.clean.config import PersianConfig
from tanzim.data.clean.persian.joins import CutWords, unreversed, unwrapped
from tanzim.data.clean.persian.letters import (
    letter_table,
    marked,
    shapes_to_letters,
    without_kashida,
    without_marks,
)
from tanzim.data.clean.persian.lexicon import Lexicon
from tanzim.data.clean.persian.punctuation import signs, spaces
from tanzim.data.clean.persian.script import ARABIC_SCRIPT, Holes, judged
from tanzim.data.clean.persian.spacing import HalfSpaces, tidy


class Normaliser:
    """Makes Persian texts whole after a config; texts of other languages stay as they are.

    Doing it twice is doing it once. Latin words, code, addresses, tags, JSON, emoji and verses in ﴿﴾ stay as
    they are, as do lines of another language in a Persian text.

    Args:
        config: what is changed and what kept.
        lexicon: counts of the corpus for doubtful words (see `Lexicon`); None for the rules alone.

    """

    def __init__(self, config: PersianConfig, lexicon: Lexicon | None = None) -> None:
        self._config = config
        self._table = letter_table(config.letters, config.digits)
        self._halves = HalfSpaces(lexicon, config.phrases == "join")
        self._cut = CutWords(lexicon) if lexicon is not None and config.cut_words else None

    def __call__(self, text: str) -> str:
        """Return the text as it should be written."""
        if not ARABIC_SCRIPT.search(text):
            return text
        config = self._config
        whole = config.reversed_lines and not config.lossless
        ready = unreversed(text) if whole else text
        plain = shapes_to_letters(ready) if config.letters else ready
        persian, apart = judged(plain)
        if not persian:
            return text
        if config.line_wraps == "join" and not config.lossless:
            plain = unwrapped(plain)
            apart = judged(plain)[1]
        if not config.change_marked:
            apart += marked(plain)
        holes = Holes(plain, apart)
        inner = holes.text.translate(self._table)
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
