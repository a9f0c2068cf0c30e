"""Pages are read back with the standard library's HTML parser, an independent judge of what was written."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from tanzim.core.page import (
    Html,
    attribute,
    code,
    escape,
    fold,
    join,
    language,
    page,
    prose,
    section,
    table,
    tag,
    word,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></pre></bdi><svg onload=alert(1)>",
    "' onmouseover='alert(1)",
    "&lt;script&gt; &amp; &#60;",
    "<!-- -->]]><![CDATA[",
]
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects elements, attributes and text, and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("wrap", [prose, word, code, lambda t: tag("p", t), lambda t: fold(t, t)])
def test_hostile_text_stays_text(text, wrap):
    reader = read(wrap(text))
    assert text in "".join(reader.text)
    allowed = {"div", "bdi", "pre", "code", "p", "details", "summary"}
    assert {name for name, _ in reader.elements} <= allowed
    assert all(key in {"class", "dir", "lang"} for _, attrs in reader.elements for key in attrs)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_attribute_stays_one_attribute(text):
    ((name, attrs),) = read(tag("p", title=text)).elements
    assert (name, attrs) == ("p", {"title": text})


def test_hostile_title_table_and_section_in_a_whole_page():
    hostile = "".join(HOSTILE)
    whole = page(hostile, section(hostile, "a", table([hostile], [[hostile]], caption=hostile)))
    reader = read(whole)
    names = [name for name, _ in reader.elements]
    assert not {"script", "img", "svg"} & set(names)
    assert "".join(reader.text).count(hostile) == 5


@pytest.mark.parametrize(
    ("character", "name"),
    [("\u202e", "RLO"), ("\u2066", "LRI"), ("\u200f", "RLM"), ("\x00", "␀"), ("\ud800", "U+D800"),
     ("\ufeff", "BOM"), ("\U000e0041", "U+E0041"), ("\r", "␍"), ("\u200b", "ZWSP")],
)  # fmt: skip
def test_characters_that_cannot_be_seen_are_named(character, name):
    shown = escape(f"a{character}b")
    assert character not in shown
    reader = read(shown)
    assert reader.text == ["a", name, "b"]
    assert reader.elements[0][1]["title"] == f"U+{ord(character):04X}"
    assert attribute(f"a{character}b") == f"a[{name}]b"
    page("x", prose(f"a{character}b")).encode("utf-8")


def test_joiners_and_line_breaks_are_kept_as_they_are():
    text = "می\u200cخواهم\n\tدو خط"
    assert escape(text) == text
    assert "".join(read(prose(text)).text) == text


def test_only_markup_passes_unescaped():
    assert tag("p", Html("<b>x</b>"), "<b>") == "<p><b>x</b>&lt;b&gt;</p>"
    assert join(["<", [Html("<br>"), "&"]]) == "&lt;<br>&amp;"


def test_somebodys_text_is_isolated_and_takes_its_own_direction():
    ((name, attrs),) = read(prose("سلام دنیا")).elements
    assert name == "div"
    assert (attrs["dir"], attrs["lang"]) == ("auto", "fa")
    assert read(word("سلام")).elements[0][0] == "bdi"
    assert read(code("a: 1")).elements[0][1]["dir"] == "ltr"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", ""),
        ("کتاب", "fa"),
        ("سلام", "und-Arab"),
        ("شماره INV-7 گم شد", "fa"),
        ("שלום", ""),
        ("", ""),
    ],
)
def test_language_is_told_from_letters_or_left_open(text, expected):
    assert language(text) == expected


def test_the_page_can_request_nothing_and_its_style_is_the_one_allowed():
    whole = page("t", tag("p", "x"))
    reader = read(whole)
    policy = next(a["content"] for n, a in reader.elements if a.get("http-equiv"))
    style = re.search("<style>(.*)</style>", whole, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert not any({"src", "href", "style"} & set(attrs) for _, attrs in reader.elements)
    assert next(a for n, a in reader.elements if n == "html") == {"lang": "en", "dir": "ltr"}


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["1"]])
