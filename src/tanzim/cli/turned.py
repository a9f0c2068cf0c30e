"""Text for a terminal: made harmless, wrapped, and turned round where it runs from right to left.

Some terminals turn and join Persian themselves (those of GNOME, KDE and macOS, mlterm); most others, tmux
and the Linux console among them, put the letters down as they come, which nobody can read. For those it is
done here: the Unicode Bidirectional Algorithm (UAX #9, without explicit marks and without N0, brackets in
pairs), and the joined forms that Unicode has characters for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_MARKS = "\u200e\u200f\u061c"  # of direction: they count and are not seen
_MIRRORED = dict(zip("()[]{}<>«»‹›≤≥", ")(][}{><»«›‹≥≤", strict=True))
_LAM = "\u0644"
_NUMBERS = ("EN", "AN")


def safe(text: str) -> str:
    """Return text that a terminal shows and never obeys: no escapes, no marks that turn it in secret."""
    shown = []
    for letter in text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n"):
        code = ord(letter)
        if letter == "\t":
            shown.append("    ")
        elif code < 0x20 and letter != "\n":
            shown.append(chr(0x2400 + code))
        elif 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
            shown.append("\ufffd")
        elif not (0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069):
            shown.append(letter)
    return "".join(shown)


def width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(map(_cells, text))


def right_to_left(text: str) -> bool:
    """Return whether the first letter with a direction runs from right to left (UAX #9, P2)."""
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind in ("L", "R", "AL"):
            return kind != "L"
    return False


def rows(text: str, columns: int, *, turn: bool) -> list[str]:
    """Wrap a text; paragraphs from right to left stand at the right.

    Args:
        text: any text.
        columns: cells in a row.
        turn: whether it is turned and joined here.

    """
    found = []
    for paragraph in safe(text).split("\n"):
        backwards = right_to_left(paragraph)
        pieces = _shaped(list(_pieces(paragraph))) if turn else list(_pieces(paragraph))
        levels = _levels(pieces, backwards) if turn else [0] * len(pieces)
        for start, stop in _wrapped(pieces, columns):
            line = pieces[start:stop]
            if turn:
                line = _reordered(line, levels[start:stop])
            shown = "".join(piece.text for piece in line)
            found.append(" " * (columns - width(shown)) + shown if backwards else shown)
    return found


def cut(text: str, columns: int) -> str:
    """Return the beginning of a row that is too long."""
    if width(text) <= columns:
        return text
    while width(text) > columns - 1:
        text = text[:-1]
    return f"{text}…"


def row(text: str, *, turn: bool) -> str:
    """Return a short text as one row."""
    flat = " ".join(safe(text).split())
    return rows(flat, max(1, width(flat)), turn=turn)[0].strip()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A letter with the marks on it.

    Args:
        text: what is shown.
        kind: its bidirectional class.
        tail: what follows unseen: it may join, or keep apart.

    """

    text: str
    kind: str
    tail: str = ""


def _cells(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _pieces(text: str) -> Iterator[_Piece]:
    start = 0
    for place in range(1, len(text) + 1):
        if place < len(text) and _cells(text[place]) == 0 and text[place] not in _MARKS:
            continue
        part = text[start:place]
        yield _Piece(part, unicodedata.bidirectional(part[0]), part[1:])
        start = place


def _wrapped(pieces: Sequence[_Piece], columns: int) -> Iterator[tuple[int, int]]:
    """Yield where each row begins and ends; words longer than a row are cut."""
    start = used = 0
    space = None
    for place, piece in enumerate(pieces):
        size = width(piece.text)
        if used + size > columns and place > start:
            if piece.text == " ":
                space = place
            stop = place if space is None else space
            yield start, stop
            start = stop if space is None else space + 1
            used, space = sum(width(one.text) for one in pieces[start:place]), None
            if piece.text == " " and start > place:
                continue
        if piece.text == " ":
            space = place
        used += size
    yield start, len(pieces)


def _levels(pieces: Sequence[_Piece], backwards: bool) -> list[int]:
    """Return the embedding level of each piece (UAX #9: W2 to W7, N1, N2, I1, I2)."""
    base = "R" if backwards else "L"
    kinds = _weak([piece.kind for piece in pieces], base)
    place = 0
    while place < len(kinds):
        stop = place
        while stop < len(kinds) and kinds[stop] not in ("L", "R", *_NUMBERS):
            stop += 1
        if stop > place:
            before = _side(kinds[place - 1]) if place else base
            after = _side(kinds[stop]) if stop < len(kinds) else base
            kinds[place:stop] = [before if before == after else base] * (stop - place)
        place = stop + 1
    if backwards:
        return [1 if kind == "R" else 2 for kind in kinds]
    return [{"L": 0, "R": 1}.get(kind, 2) for kind in kinds]


def _weak(kinds: list[str], base: str) -> list[str]:
    strong = base
    for place, kind in enumerate(kinds):  # W2
        if kind in ("L", "R", "AL"):
            strong = kind
        elif kind == "EN" and strong == "AL":
            kinds[place] = "AN"
    kinds = ["R" if kind == "AL" else kind for kind in kinds]  # W3
    for place in range(1, len(kinds) - 1):  # W4
        around = (kinds[place - 1], kinds[place + 1])
        if around == ("EN", "EN") and kinds[place] in ("ES", "CS"):
            kinds[place] = "EN"
        elif around == ("AN", "AN") and kinds[place] == "CS":
            kinds[place] = "AN"
    for places in (range(len(kinds)), range(len(kinds) - 1, -1, -1)):  # W5
        before = ""
        for place in places:
            if kinds[place] == "ET" and before == "EN":
                kinds[place] = "EN"
            before = kinds[place]
    strong = base
    for place, kind in enumerate(kinds):  # W6 leaves ES, ET and CS neutral; W7
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[place] = "L"
    return kinds


def _side(kind: str) -> str:
    return "R" if kind in _NUMBERS else kind


def _reordered(line: Sequence[_Piece], levels: Sequence[int]) -> list[_Piece]:
    """Put a row in the order it is seen in, from the left (UAX #9: L1, L2, L4)."""
    base = min(levels, default=0)
    found = [
        _Piece(_MIRRORED.get(piece.text, piece.text), piece.kind) if level % 2 else piece
        for piece, level in zip(line, levels, strict=True)
    ]
    order = list(levels)
    for place in range(len(line) - 1, -1, -1):  # spaces at the end belong to the row
        if line[place].kind != "WS":
            break
        order[place] = base
    for level in range(max(order, default=0), 0, -1):
        start = 0
        while start < len(order):
            stop = start
            while stop < len(order) and order[stop] >= level:
                stop += 1
            found[start:stop] = reversed(found[start:stop])
            order[start:stop] = reversed(order[start:stop])
            start = stop + 1
    return [piece for piece in found if piece.text not in _MARKS]


@cache
def _forms() -> tuple[Mapping[tuple[str, str], str], Mapping[tuple[str, str], str]]:
    """Return the joined forms of letters, and of lam with alef: (letter, form) → character."""
    letters: dict[tuple[str, str], str] = {}
    alefs: dict[tuple[str, str], str] = {}
    for code in (*range(0xFB50, 0xFDFE), *range(0xFE70, 0xFEFD)):
        form, _, rest = unicodedata.decomposition(chr(code)).partition(" ")
        plain = "".join(chr(int(part, 16)) for part in rest.split())
        if len(plain) == 1:
            letters[plain, form.strip("<>")] = chr(code)
        elif len(plain) == 2 and plain[0] == _LAM and plain[1] in "\u0622\u0623\u0625\u0627":
            alefs[plain[1], form.strip("<>")] = chr(code)
    return letters, alefs


def _shaped(pieces: list[_Piece]) -> list[_Piece]:
    """Put each letter in the form it has beside its neighbours."""
    letters, alefs = _forms()

    def joins_on(piece: _Piece) -> bool:  # to what follows it
        if _ZWNJ in piece.tail:
            return False
        return (piece.text[0], "initial") in letters or piece.text[0] == "ـ" or _ZWJ in piece.tail

    def joins_back(piece: _Piece) -> bool:
        return (piece.text[0], "final") in letters or piece.text[0] == "ـ"

    found: list[_Piece] = []
    place = 0
    while place < len(pieces):
        piece = pieces[place]
        after = pieces[place + 1] if place + 1 < len(pieces) else None
        back = place > 0 and joins_on(pieces[place - 1]) and joins_back(piece)
        if (
            after is not None
            and piece.text[0] == _LAM
            and not piece.tail
            and (after.text[0], "final") in alefs
        ):
            form = alefs[after.text[0], "final" if back else "isolated"]
            found.append(_Piece(form + _seen(after.tail), after.kind))
            place += 2
            continue
        on = _ZWJ in piece.tail or (after is not None and joins_on(piece) and joins_back(after))
        form = ("medial" if on else "final") if back else ("initial" if on else "isolated")
        shown = letters.get((piece.text[0], form), piece.text[0])
        found.append(_Piece(shown + _seen(piece.tail), piece.kind))
        place += 1
    return found


def _seen(tail: str) -> str:
    return "".join(letter for letter in tail if letter not in (_ZWNJ, _ZWJ))
