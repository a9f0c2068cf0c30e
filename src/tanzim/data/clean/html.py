"""HTML left in texts, as plain text."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from tanzim.core.records import Example
from tanzim.data.clean.config import HtmlConfig
from tanzim.data.step import Outcome, Removed, Step
from tanzim.data.texts import blank, rewrite


def _names(names: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", names))


_DROPPED = _names("script style noscript template svg math iframe object canvas")
_PARAGRAPH = _names(
    "html head body title p div section article header footer main nav aside form fieldset table ul ol dl "
    "h1 h2 h3 h4 h5 h6 blockquote pre figure figcaption address hr center details summary"
)
_LINE = _names("br li tr dt dd option legend caption thead tbody tfoot")
_CELL = _names("td th")
_INLINE = _names(
    "a abbr acronym b base bdi bdo big button cite code col colgroup data del dfn em embed font i img input "
    "ins kbd label link map mark meta meter nobr optgroup output param picture progress q rp rt ruby s samp "
    "select small source span strike strong sub sup textarea time track tt u var video audio wbr area"
)
_ELEMENTS = _DROPPED | _PARAGRAPH | _LINE | _CELL | _INLINE
# Prompts mark their parts with these, too (<input>…</input>, <video>): bare ones outside a page stay.
_OFTEN_PROMPTS = _names(
    "title section article header footer main form address details summary option caption template object "
    "code cite data input label link map mark output picture progress q s source time track var video audio"
)
# A tag ends at the first > outside quotes. Nothing in it may be <, so that hostile text costs no more time.
_OPEN = re.compile(
    r"<(?P<close>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?=[\s/>])"
    r"(?:(?>[^<>\"']|\"[^\"<]*\"|'[^'<]*')*+>|[^<>]*+>)"
    r"|(?P<comment><!--)|(?P<declaration><[!?][a-zA-Z\[][^<>]*+>)"
)
_PAGE = re.compile(r"<(?:!doctype\s+html|html|body)\b", re.IGNORECASE)
_CODE = re.compile(r"^(```|~~~).*?(?:^\1|\Z)|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_WHITE, _TRAILING, _MANY = re.compile(r"[ \t\r\n\f]++"), re.compile(r"[ \t]++\n"), re.compile(r"\n{3,}")
_BREAK, _GAP = "\n", "\n\n"


def strip_html(
    text: str,
    *,
    scripts: str = "drop",
    entities: bool = True,
    code: str = "keep",
    counts: Counter[str] | None = None,
) -> str:
    """Return a text without its HTML, in time linear in its length.

    Elements of HTML alone are tags: ``<think>``, ``<image>`` and ``a < b`` stay. Blocks become paragraphs,
    items and rows lines, cells tabs. Escaped tags (``&lt;b&gt;``) were meant to be seen: they become ``<b>``,
    so that a second pass would take them for tags.

    Args:
        text: any text: a page, a fragment, or one with a few stray tags.
        scripts: "drop" what stands in scripts, styles and drawings, or "keep" it.
        entities: whether ``&amp;`` becomes ``&``.
        code: "keep" Markdown code (between back-ticks) as it is, or "clean" it, too.
        counts: what was found is added here.

    """
    found: Counter[str] = Counter()
    page = bool(_PAGE.search(text))
    if code == "keep" and not page and "`" in text:
        pieces, start = [], 0
        for match in _CODE.finditer(text):
            pieces += [_strip(text[start : match.start()], scripts, entities, page, found), match.group()]
            start = match.end()
        pieces.append(_strip(text[start:], scripts, entities, page, found))
        out = "".join(pieces)
    else:
        out = _strip(text, scripts, entities, page, found)
    if found["tag"] or found["comment"] or found["script or style"]:
        out = out.strip()
    if counts is not None:
        counts.update(+found)
    return out


def _strip(text: str, scripts: str, entities: bool, page: bool, found: Counter[str]) -> str:
    if "<" in text:
        pieces = list(_pieces(text, scripts, page, found))
        if len(pieces) > 1:
            text = _joined(pieces, page or _dense(pieces))
    if entities and "&" in text:
        text, count = _ENTITY.subn(lambda match: html.unescape(match.group()), text)
        found["entity"] += count
    return text


def _pieces(text: str, scripts: str, page: bool, found: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield (what a tag stands for, the text behind it); the first has no tag."""
    unclosed: set[str] = set()
    opened: set[str] = set()
    sign, start, at = "", 0, 0
    while match := _OPEN.search(text, at):
        name, at = (match["name"] or "").lower(), match.end()
        if match["name"] and not (page or name not in _OFTEN_PROMPTS or _opened(match, opened)):
            continue
        if match["name"] and name not in _ELEMENTS:
            continue
        if match["comment"] or (name in _DROPPED and not match["close"]):
            end = at if name and scripts == "keep" else _end(text, at, name, unclosed)
            if match["comment"] and end < 0:
                continue
            at = max(at, end)
            found["comment" if match["comment"] else "script or style"] += 1
        else:
            found["tag"] += 1
        yield sign, text[start : match.start()]
        start, sign = at, _sign(name, bool(match["close"]))
    yield sign, text[start:]


def _opened(match: re.Match[str], opened: set[str]) -> bool:
    """Return whether a tag has attributes, or is named as an earlier one that had."""
    name = match["name"].lower()
    if not match["close"] and len(match.group()) > len(name) + 4:
        opened.add(name)
    return name in opened


def _end(text: str, at: int, name: str, unclosed: set[str]) -> int:
    """Return where a comment (no name) or an element ends, or -1."""
    if name in unclosed:
        return -1
    match = re.compile(rf"</{name}\s*+>" if name else "-->", re.IGNORECASE).search(text, at)
    if not match:
        unclosed.add(name)
        return -1
    return match.end()


def _sign(name: str, close: bool) -> str:
    if name == "pre":
        return "pre" if not close else _GAP
    if name in _PARAGRAPH:
        return _GAP
    if name in _LINE:
        return _BREAK if name == "br" or not close else ""
    return "\t" if name in _CELL and close else ""


def _dense(pieces: list[tuple[str, str]]) -> bool:
    """Return whether blocks, rather than line feeds, part the paragraphs of a text."""
    gaps = sum(sign in (_GAP, "pre") for sign, _ in pieces)
    return gaps >= 2 and gaps * 2 >= sum(piece.count("\n") for _, piece in pieces)


def _joined(pieces: list[tuple[str, str]], collapse: bool) -> str:
    out: list[str] = []
    for sign, piece in pieces:
        if collapse and sign != "pre":
            piece = _WHITE.sub(" ", piece)  # noqa: PLW2901 - the same piece, as it is shown
            piece = piece.lstrip(" ") if sign else piece  # noqa: PLW2901
        out += [_GAP if sign == "pre" else sign, piece]
    joined = "".join(out)
    if not any(sign for sign, _ in pieces):
        return joined
    return _MANY.sub(_GAP, _TRAILING.sub("\n", joined))


class Html(Step[HtmlConfig]):
    """Take HTML out of documents and labelled texts; one that was nothing else is removed.

    Conversations and pairs stay as they are unless told otherwise: HTML in them is often what was asked for.
    """

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example without HTML."""
        for example in examples:
            if example.kind in ("messages", "pair") and self.config.conversations == "keep":
                yield example
                continue
            cleaned = rewrite(example, self._clean)
            if cleaned is not example and blank(cleaned) and not blank(example):
                yield Removed(example, "nothing but HTML")
            else:
                yield cleaned

    def _clean(self, text: str) -> str:
        if "<" not in text and "&" not in text:
            return text
        config = self.config
        return strip_html(
            text, scripts=config.scripts, entities=config.entities, code=config.code, counts=self.counts
        )
