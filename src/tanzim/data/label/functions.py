"""Labelling functions: text → a label, or None where they have nothing to say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np

from tanzim.core.errors import DataError
from tanzim.data.label.config import RuleConfig
from tanzim.data.label.model import Votes
from tanzim.data.similarity import normalise

LabellingFunction = Callable[[str], str | None]
_normalised = lru_cache(maxsize=1)(normalise)  # all rules look at one text after another


def rule(config: RuleConfig) -> LabellingFunction:
    """Make a labelling function of keywords and patterns."""
    words = [re.escape(normalise(word)) for word in config.keywords]
    # A keyword may begin or end with a sign (c++): \b would not do.
    keyword = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)") if words else None
    patterns = [re.compile(pattern, re.IGNORECASE) for pattern in config.patterns]

    def say(text: str) -> str | None:
        if keyword is not None and keyword.search(_normalised(text)):
            return config.label
        return config.label if any(pattern.search(text) for pattern in patterns) else None

    return say


def votes(texts: Iterable[str], functions: Sequence[LabellingFunction], labels: Sequence[str]) -> Votes:
    """Return what each function says of each text, [N, J]: the number of a label, or C for nothing.

    Args:
        texts: N texts.
        functions: J of them.
        labels: the C labels they may say.

    Raises:
        DataError: a function says something else.

    """
    codes: dict[str | None, int] = {label: code for code, label in enumerate(labels)}
    codes[None] = len(labels)
    said = []
    for text in texts:
        row = [function(text) for function in functions]
        if unknown := [one for one in row if one not in codes]:
            raise DataError(
                f"a labelling function says '{unknown[0]}', which is not one of {', '.join(labels)}",
                where="labelling functions",
                fix="name all labels, and return None where there is nothing to say",
            )
        said.append([codes[one] for one in row])
    return np.array(said, np.int64).reshape(len(said), len(functions))
