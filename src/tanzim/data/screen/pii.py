"""Personal data: found, and redacted, given a pseudonym, or taken out with its example."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from tanzim.core.records import Example
from tanzim.data.screen.config import Action, PiiConfig
from tanzim.data.screen.detect import ALL, Detector
from tanzim.data.screen.found import Found, replace, settle
from tanzim.data.screen.key import pseudonym_key
from tanzim.data.screen.pseudonym import Pseudonyms
from tanzim.data.screen.said import texts_of, with_texts
from tanzim.data.step import Outcome, Removed, Step

_TOGETHER = 64  # examples whose texts go through the recognisers at once


class Screen:
    """Hides personal data in texts; the step without the chain.

    Args:
        config: what is looked for, and what is done with it.

    Raises:
        MissingExtra: a package of the extra ``screen`` is not installed.
        ConfigError: the key for pseudonyms cannot be had.

    """

    def __init__(self, config: PiiConfig) -> None:
        self.config = config
        self.actions: dict[str, Action] = dict.fromkeys(ALL, config.action)
        self.actions.update({str(entity): action for entity, action in config.actions.items()})
        wanted = [entity for entity, action in self.actions.items() if action != "keep"]
        self._detector = Detector(wanted, language=config.language, threshold=config.threshold)
        self._allowed = {text.casefold() for text in config.allow}
        self._pseudonyms = (
            Pseudonyms(pseudonym_key(config.key)) if "pseudonym" in self.actions.values() else None
        )

    def find(self, texts: Sequence[str]) -> list[list[Found]]:
        """Return for each text what personal data stands in it."""
        return [
            [one for one in found if text[one.start : one.end].casefold() not in self._allowed]
            for text, found in zip(texts, self._detector.find(texts), strict=True)
        ]

    def hide(self, text: str, found: Sequence[Found]) -> str:
        """Return the text with masks or pseudonyms; what would drop the example is masked."""
        return replace(text, found, self._instead)

    def _instead(self, one: Found, text: str) -> str:
        if self.actions[one.entity] == "pseudonym" and self._pseudonyms:
            return self._pseudonyms.of(one.entity, text)
        return self.config.mask.replace("{entity}", one.entity)


def spread(found: dict[str, list[Found]]) -> dict[str, list[Found]]:
    """Return the finds of an example's texts, with each full name hidden wherever else it stands in them."""
    names = {
        text[one.start : one.end]: one
        for text, some in found.items()
        for one in some
        if one.entity == "PERSON" and len(text[one.start : one.end].split()) > 1
    }
    if not names or len(found) == 1:
        return found
    pattern = re.compile(
        rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})(?!\w)"
    )
    return {
        text: settle(
            [*some, *(Found(*m.span(), "PERSON", names[m[0]].score) for m in pattern.finditer(text))]
        )
        for text, some in found.items()
    }


class Pii(Step[PiiConfig]):
    """Hide personal data in every turn, thinking and tool argument, or take the example out.

    The words of a tagged example carry tags and stay; what is found in them is counted, or drops it.
    Definitions of tools, names of tools and labels are not looked at. Names are found by a small model of
    English and by cues in Persian: some are missed (``bench/data_screen.py`` says how many).
    """

    private = True

    @classmethod
    def outside(cls, config: PiiConfig) -> list[str]:
        """Return the fingerprint of the key, so that another key gives other pseudonyms."""
        if "pseudonym" not in (config.action, *config.actions.values()):
            return []
        return [hashlib.sha256(b"fingerprint" + pseudonym_key(config.key)).hexdigest()[:16]]

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example with its personal data hidden, or its removal."""
        screen, waiting = Screen(self.config), iter(examples)
        while batch := list(islice(waiting, _TOGETHER)):
            texts = list(dict.fromkeys(text for example in batch for text in texts_of(example)))
            found = dict(zip(texts, screen.find(texts), strict=True))
            for example in batch:
                yield self._judge(example, screen, spread({text: found[text] for text in texts_of(example)}))

    def _judge(self, example: Example, screen: Screen, found: dict[str, list[Found]]) -> Outcome:
        seen = Counter(one.entity for text in texts_of(example) for one in found[text])
        dropping = {entity: count for entity, count in seen.items() if screen.actions[entity] == "drop"}
        place = "in words with tags: " if example.kind == "tagged" else ""
        self.counts.update({f"{place}{entity}": count for entity, count in seen.items()})
        if not seen:
            return example
        hidden = with_texts(example, lambda text: screen.hide(text, found[text]))
        if not dropping:
            return hidden
        if example.kind == "tagged":  # the file of removed rows must not show what was found
            text = screen.hide(example.text, found[example.text])
            hidden = dataclasses.replace(example, text=text, words=(), tags=())
        listed = ", ".join(f"{entity} ({count})" for entity, count in sorted(dropping.items()))
        return Removed(hidden, "it holds personal data", listed)
