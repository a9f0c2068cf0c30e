"""Chunks, Markdown and HTML: compared with markdown-it, and with properties that any cut must have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from helpers.properties import examples
from tanzim.core.errors import DataError
from tanzim.data.config import DataConfig
from tanzim.data.ingest.documents.blocks import Block
from tanzim.data.ingest.documents.chunks import cut, pieces, sentence_ends
from tanzim.data.ingest.documents.config import ChunksConfig
from tanzim.data.ingest.documents.html import read_html
from tanzim.data.ingest.documents.markdown import read_markdown
from tanzim.data.ingest.documents.parts import page_text
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.sources import Source

PERSIAN = "باران می‌بارید؛ کسی نبود. آیا او می‌آید؟ نمی‌دانم! فردا «کتاب‌ها» را می‌آورم… شاید. دیگر هیچ."
ENGLISH = (
    'Dr. Day came at 3.5 p.m. on foot. "Is it late?" he asked. J. R. Smith said no! We left… Then it rained.'
)
MARKDOWN = """---
title: سرآغاز
---

درآمد

# فصل یک #

Text with # no heading.

Two lines
under one line
---

## بخش `الف`

```python
# no heading

## nor this
```

- item
- item

Words again.

   ### Indented by three

    # code, indented by four

~~~
# nor this
~~~
#not a heading
###### Six
"""


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


WORDS = st.text(alphabet="abc دکه\u200c.؟!,\n1«»", min_size=1, max_size=300)


@examples(200)
@given(text=WORDS, most=st.integers(5, 80))
@example(text="1111. ", most=5)
@example(text="       دکه   ", most=5)
def test_a_cut_loses_nothing_but_white_space_and_keeps_the_limit(text: str, most: int) -> None:
    parts = cut(text, most)
    assert squeezed("".join(parts)) == squeezed(text)
    assert all(part.strip() and len(part) <= most for part in parts)


@pytest.mark.parametrize("text", [PERSIAN, ENGLISH])
def test_a_cut_falls_between_sentences_where_they_fit(text: str) -> None:
    parts = cut(text, 60)
    assert len(parts) > 1
    assert all(part.rstrip('"')[-1] in ".!?؟…" for part in parts), parts
    assert " ".join(parts) == text


def test_sentence_ends_of_both_languages() -> None:
    def sentences(text: str) -> list[str]:
        ends = sentence_ends(text)
        return [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)]

    assert sentences(PERSIAN) == [
        "باران می‌بارید؛ کسی نبود.",
        "آیا او می‌آید؟",
        "نمی‌دانم!",
        "فردا «کتاب‌ها» را می‌آورم…",
        "شاید.",
        "دیگر هیچ.",
    ]
    assert sentences(ENGLISH)[0] == "Dr. Day came at 3.5 p.m. on foot."
    assert "J. R. Smith said no!" in sentences(ENGLISH)


def test_headings_are_those_of_markdown_it() -> None:
    body = MARKDOWN.split("---\n", 2)[2]  # markdown-it knows no front matter
    tokens = MarkdownIt().parse(body)
    theirs = [
        (int(token.tag[1]), tokens[at + 1].content.replace("\n", " "))
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    ours = [(block.level, block.text) for block in read_markdown(MARKDOWN) if block.level]
    assert ours == theirs
    assert len(ours) == 5


LINES = st.lists(
    st.sampled_from(
        [
            "# a",
            "## ب #",
            "#",
            "# #",
            "#c",
            "####### d",
            "text",
            "متن",
            "===",
            "  ===  ",
            "---",
            "--",
            "- - -",
            "***",
            "    code",
            "\tcode",
            "   ## y ##  ",
            "# a #b",
            "- x",
            "> q",
            "```",
            "```x",
            "``` a`b",
            "~~~~",
            "    ~~~~",
            "",
        ]
    ),
    max_size=12,
)


@examples(200)
@given(lines=LINES)
@example(lines=["---", "#c", "==="])  # a line drawn, and no paragraph, stands above the heading
@example(lines=["    code", "text", "==="])
@example(lines=["~~~", "    ~~~~", "# a"])
@example(lines=["--", "==="])
def test_headings_of_random_markdown(lines: list[str]) -> None:
    text = "\n".join(["start", "", *lines])
    tokens = MarkdownIt().parse(text)
    theirs = [
        (int(token.tag[1]), tokens[at + 1].content.split())
        for at, token in enumerate(tokens)
        if token.type == "heading_open" and tokens[at + 1].content and token.level == 0
    ]
    blocks = list(read_markdown(text))
    ours = [(block.level, block.text.split()) for block in blocks if block.level]
    if not any(line in ("- x", "> q") for line in lines):  # where a list or a quotation goes on, they differ
        assert ours == theirs
    joined = "".join(block.text for block in blocks)
    assert squeezed(joined).count("متن") == text.count("متن"), "text is lost"


def test_sections_know_where_they_stand() -> None:
    blocks = [
        Block("Book", 1),
        Block("One", 2),
        Block("a"),
        Block("Deep", 3),
        Block("b"),
        Block("دو", 2),
        Block("c"),
    ]
    found = [(one.text, one.about) for one in pieces(blocks, ChunksConfig())]
    assert found == [
        ("# Book\n\n## One\n\na", {"section": "Book > One"}),
        ("### Deep\n\nb", {"section": "Book > One > Deep"}),
        ("## دو\n\nc", {"section": "Book > دو"}),
    ]
    whole = list(pieces(blocks, ChunksConfig(by="document")))
    assert [one.about for one in whole] == [{}]
    assert whole[0].text.count("\n\n") == 6


def test_pages_and_parts_are_numbered() -> None:
    blocks = [Block("word " * 30 + "end.", page=1), Block("x", page=2), Block("y", page=2)]
    found = list(pieces(blocks, ChunksConfig(max_characters=80)))
    assert [one.about for one in found] == [{"page": 1, "part": 1}, {"page": 1, "part": 2}, {"page": 2}]
    packed = list(pieces(blocks, ChunksConfig(by="paragraph", max_characters=1000)))
    assert [one.about for one in packed] == [{"pages": [1, 2]}]


@pytest.mark.parametrize("value", [{"by": "paragraph"}, {"by": "document", "max_characters": 100}])
def test_settings_that_contradict_each_other(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="max_characters"):
        ChunksConfig.model_validate(value)


PAGE = """<!doctype html><html dir=rtl><head><title>t</title>
<meta charset=utf-8><style>p{}</style></head><body>
<nav><a href=/>خانه</a> <a href=/b>درباره</a></nav>
<article><h1>کتاب‌ها و نیم‌فاصله</h1><p>می‌خواهم <b>کتاب‌ها</b> را بخوانم.<br>سطر دوم می‌آید. %s</p>
<h2>فهرست</h2><p>پیش از فهرست. %s</p><ul><li>یک<li><p>دو</p></ul>
<table><tr><th>نام<th>سن</tr><tr><td>مینا<td>۳۰</tr></table><pre>  if x:
    y()</pre></article><script>alert(1)</script><footer>© همه‌ی حقوق</footer></body></html>""" % (
    ("این جمله‌ای است که متن را بلندتر می‌کند تا بدنه‌ی اصلی شناخته شود. " * 4,) * 2
)


def test_a_page_keeps_headings_tables_code_and_half_spaces() -> None:
    blocks = list(read_html(PAGE, main=False))
    texts = [block.text for block in blocks]
    assert [(b.level, b.text) for b in blocks if b.level] == [(1, "کتاب‌ها و نیم‌فاصله"), (2, "فهرست")]
    assert any(text.startswith("می‌خواهم کتاب‌ها را بخوانم.\nسطر دوم می‌آید.") for text in texts)
    assert "- یک\n- دو" in texts
    assert "نام | سن\nمینا | ۳۰" in texts
    assert "```\n  if x:\n    y()\n```" in texts
    assert not any("alert" in text or "p{}" in text for text in texts)
    assert texts[0].startswith("خانه")


def test_the_main_text_leaves_navigation_out_and_half_spaces_in() -> None:
    text = "\n".join(block.text for block in read_html(PAGE, main=True))
    assert "می‌خواهم" in text
    assert "جمله‌ای است که متن را بلندتر می‌کند" in text
    assert "خانه درباره" not in text
    assert "حقوق" not in text


def test_pages_in_the_encoding_that_they_name(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes("<html><meta charset='windows-1256'><p>سلام دنيا</p>".encode("cp1256"))
    assert "سلام دنيا" in page_text(path, "auto")
    path.write_bytes("<meta charset=iso-8859-1><p>“caf\xe9”</p>".encode("cp1252"))
    assert "“café”" in page_text(path, "auto")  # as browsers read it
    path.write_bytes("<meta charset=iso-8859-1><p>می‌روم</p>".encode())
    assert "می‌روم" in page_text(path, "auto")  # UTF-8, whatever it says
    path.write_bytes("<p>سلام دنيا، حال شما چطور است</p>".encode("cp1256"))
    with pytest.raises(DataError, match="not UTF-8"):
        page_text(path, "auto")


def test_a_markdown_file_becomes_examples_with_their_sections(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(MARKDOWN, encoding="utf-8")
    examples = list(ingest(Source("a.md", path), DataConfig(path="x")).items())
    found = [(one.kind, one.about.get("section")) for one in examples]
    assert found[:3] == [
        ("text", None),
        ("text", "فصل یک"),
        ("text", "فصل یک > بخش `الف"),  # a heading without text of its own goes with the next
    ]
    assert [one.provenance.row for one in examples] == list(range(1, len(examples) + 1))
    assert squeezed("".join(one.text for one in examples)).count("#nothis") == 0
    assert any(one.about.get("section", "").endswith("بخش `الف") for one in examples)
