"""One self-contained HTML page: offline, escaped, printable, and right-to-left where the text is.

Every plain string that becomes a child or an attribute is escaped; only `Html` passes as it is. So a
page is safe by its types: text from a data file can never become markup. There is no script, and the
page's own policy forbids it any request.

Direction: a *block* of somebody's text goes through `prose`, a *word* of it through `word`. Both take
their direction from the text itself and are isolated from what stands beside them (HTML ``dir=auto``;
Unicode Standard Annex 9).
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Literal, TypeAlias


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child]"
Align = Literal["text", "number"]

# Characters that reorder, hide or break text without being seen. The joiners U+200C and U+200D are
# not among them: they are ordinary spelling in Persian.
_NAMES = {
    0x00AD: "SHY", 0x061C: "ALM", 0x200B: "ZWSP", 0x200E: "LRM", 0x200F: "RLM", 0x2028: "LS",
    0x2029: "PS", 0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO",
    0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_PERSIAN = re.compile("[پچژگکی]")
_VOID = {"br", "meta", "path", "line", "rect", "circle"}


def hidden_name(character: str) -> str:
    """Return the short name of a character that cannot be seen, such as RLO or U+0000."""
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else _NAMES.get(code, f"U+{code:04X}")


def escape(text: str) -> Html:
    """Return ``text`` as markup; characters that cannot be seen become small marks that name them."""
    if isinstance(text, Html):
        return text
    parts, end = [], 0
    for match in _HIDDEN.finditer(text):
        parts.append(html.escape(text[end : match.start()], quote=False))
        code = f"U+{ord(match.group()):04X}"
        parts.append(f'<bdi class="mark" dir="ltr" title="{code}">{hidden_name(match.group())}</bdi>')
        end = match.end()
    return Html("".join([*parts, html.escape(text[end:], quote=False)]))


def attribute(text: str) -> str:
    """Return ``text`` for an attribute's value: escaped, hidden characters named in brackets."""
    named = _HIDDEN.sub(lambda match: f"[{hidden_name(match.group())}]", str(text))
    return html.escape(named, quote=True)


def join(children: Iterable[Child]) -> Html:
    """Return the children one after another, plain strings escaped."""
    return Html("".join(escape(child) if isinstance(child, str) else join(child) for child in children))


def tag(name: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return one element.

    Args:
        name: the element.
        children: its content; plain strings are escaped.
        attributes: ``class_`` is class, ``stroke_width`` is stroke-width; None and False are left out.

    """
    text = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        shown = "viewBox" if shown == "viewbox" else shown
        text += f" {shown}" if value is True else f' {shown}="{attribute(_short(value))}"'
    if name in _VOID and not children:
        return Html(f"<{text}/>")
    return Html(f"<{text}>{join(children)}</{name}>")


def _short(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def language(text: str) -> str:
    """Return the BCP 47 tag that can be told from the letters: fa, und-Arab, or unknown (empty)."""
    if len(_RTL.findall(text)) * 3 < sum(map(str.isalpha, text)):
        return ""
    if _PERSIAN.search(text):
        return "fa"
    return "und-Arab" if re.search("[\u0600-\u06ff]", text) else ""


def prose(text: str, class_: str = "") -> Html:
    """Return a block of somebody's text: its own direction per line, line breaks kept."""
    return tag("div", text, class_=f"text {class_}".strip(), dir="auto", lang=language(text))


def word(text: str) -> Html:
    """Return a few words of somebody's text within a line of ours, isolated from it."""
    return tag("bdi", text, lang=language(text) or None)


def path(text: str) -> Html:
    """Return a file's path within a line of ours: left-to-right, whatever letters it has."""
    return tag("bdi", text, dir="ltr")


def code(text: str) -> Html:
    """Return a block of machine text (a config, a command), always left-to-right."""
    return tag("pre", tag("code", text), dir="ltr")


def link(target: str, label: str) -> Html:
    """Return a link to an element of this page."""
    return tag("a", label, href=f"#{target}")


def note(*children: Child, kind: Literal["info", "good", "bad", "missing"] = "info") -> Html:
    """Return a remark set apart; its kind is told by a sign as well as by colour."""
    sign = {"info": "i", "good": "✓", "bad": "!", "missing": "–"}[kind]
    return tag("div", tag("b", sign, class_="sign"), tag("div", *children), class_=f"note {kind}")


def table(
    head: Sequence[Child], rows: Iterable[Sequence[Child]], align: Sequence[Align] = (), caption: str = ""
) -> Html:
    """Return a table, its first column a row heading, in a box that scrolls by itself if too wide.

    Args:
        head: column names.
        rows: cells, as many as there are columns.
        align: per column, text (the default) or number.
        caption: what the table shows.

    """
    kinds = [*align, *["text"] * (len(head) - len(align))]

    def cell(name: str, child: Child, kind: str, scope: str | None) -> Html:
        return tag(name, child, class_="number" if kind == "number" else None, scope=scope)

    top = [cell("th", child, kind, "col") for child, kind in zip(head, kinds, strict=True)]
    body = []
    for row in rows:
        cells = list(zip(row, kinds, strict=True))
        first = cell("th", *cells[0], "row")
        body.append(tag("tr", first, [cell("td", child, kind, None) for child, kind in cells[1:]]))
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else "",
            tag("thead", tag("tr", top)),
            tag("tbody", body),
        ),
        class_="scroll",
    )


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Return a list of names and values."""
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("dl", items, class_="facts")


def fold(summary: Child, *children: Child) -> Html:
    """Return content that opens on a click (and is printed open)."""
    return tag("details", tag("summary", summary), *children)


def section(title: str, name: str, *children: Child) -> Html:
    """Return a section with a heading that can be linked to by ``name``."""
    return tag(
        "section",
        tag("h2", title, id=f"{name}-title"),
        *children,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def page(title: str, *body: Child) -> str:
    """Return a whole document that needs nothing but itself."""
    style = resources.files("tanzim.core").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", Html(attribute(title))),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *body)), lang='en', dir='ltr')}\n"
