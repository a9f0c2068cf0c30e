"""Punctuation: Persian or Latin signs, quotation marks, and the spaces around them."""

from __future__ import annotations

import re
from typing import Literal

from tanzim.data.clean.persian.script import HOLE, LETTERS, MARKS, ZWNJ

Punctuation = Literal["keep", "persian", "latin"]

_L = f"[{LETTERS}]"
_AFTER_LETTER = f"(?<=[{LETTERS}{MARKS}»)۰-۹])"
_QUESTION = re.compile(f"{_AFTER_LETTER}(?: *[!؟])* *\\?(?: *[?!؟])*(?![A-Za-z0-9_=&])")
_COMMA = re.compile(f"(?<=[{LETTERS}{MARKS}»)]) *,(?![\\d,])|(?<=[{HOLE}۰-۹\\])]),(?= *{_L})")
_SEMICOLON = re.compile(f"(?<=[{LETTERS}{MARKS}»)]) *;|(?<=[۰-۹]);(?= *{_L})")
_QUOTED = re.compile('(?<![\\d"])"([^"\n]*)"(?!")|“([^“”\n]*)”|„([^„“”\n]*)[“”]')
_HAS_LETTER = re.compile(_L)
_TO_PERSIAN = str.maketrans("?,;", "؟،؛")
_TO_LATIN = str.maketrans({"؟": "?", "،": ",", "؛": ";", "«": '"', "»": '"', "٪": "%"})

_RUNS = re.compile(r"  (?<=[^\s]  ) *(?=[^\s|])")
_BEFORE = re.compile(
    f" (?=[،؛؟»!?,;.:)\\]])(?<=[{LETTERS}{MARKS}{ZWNJ}\\d»)\\]؟!?] )"
    f"(?=[،؛؟»]|[!?](?![\\[\\w])|[,;](?!\\w)|[.:](?:\\s|$|[»)\\]])|[)\\]](?![(\\[]))"
    f"| (?<={HOLE} )(?=[،؛؟»])"  # what Latin words have behind them is theirs
)
_INSIDE = re.compile(f"([«(]) (?=[{LETTERS}{HOLE}\\d«(])")
_AFTER = re.compile(f"[،؛؟!:](?:(?<!:)(?=[{LETTERS}{HOLE}«])|(?<={_L}:)(?={_L}))")
_STOP = re.compile(f"\\.(?<={_L}{_L}{_L}\\.)(?={_L}{_L})")
_IN_BRACKETS = "ها|های|ان|ین|ات|ی|یی|ه|ة|ای|تر|ترین|س|ص|ع|ره|ق|م|ش"
_OPENING = re.compile(f"[«(](?<={_L}.)(?:(?<=«)|(?=(?!(?:{_IN_BRACKETS})\\)){_L}{_L}))")


def signs(text: str, policy: Punctuation) -> str:
    """Return a text with its punctuation after the policy.

    Args:
        text: a Persian text.
        policy: persian writes ؟ ، ؛ after Persian words and «» around Persian words; latin the reverse.

    """
    if policy == "keep":
        return text
    if policy == "latin":
        return text.translate(_TO_LATIN)
    if '"' in text or "”" in text:
        text = "\n".join(
            _QUOTED.sub(_guillemets, line) if line.count('"') % 2 == 0 else line for line in text.split("\n")
        )
    if "?" in text:
        text = _QUESTION.sub(_persian, text)
    if "," in text:
        text = _COMMA.sub(_persian, text)
    if ";" in text:
        text = _SEMICOLON.sub(_persian, text)
    return text


def _persian(found: re.Match[str]) -> str:
    return found[0].translate(_TO_PERSIAN)


def _guillemets(found: re.Match[str]) -> str:
    inner = next(group for group in found.groups() if group is not None)
    return f"«{inner}»" if _HAS_LETTER.search(inner) and "«" not in inner and "»" not in inner else found[0]


def spaces(text: str) -> str:
    """Return a text with the spaces that Persian puts around its signs: none before ، and one after it.

    Line breaks, tabs, and the spaces at either end of a line stay.
    """
    if "  " in text:
        text = _RUNS.sub(" ", text)
    text = _AFTER.sub(r"\g<0> ", _INSIDE.sub(r"\1", text))
    return _BEFORE.sub("", _OPENING.sub(r" \g<0>", _STOP.sub(". ", text)))
