"""HTML against lxml, hostile markup in bounded time, and lines that recur against plain counting."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import examples
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Message, Provenance, no_progress
from tanzim.data.clean.boilerplate import Boilerplate, compared_line
from tanzim.data.clean.config import BoilerplateConfig, HtmlConfig
from tanzim.data.clean.html import Html, strip_html
from tanzim.data.step import Outcome, Removed, Survey

PAGE = """<!DOCTYPE html>
<html lang="fa" dir="rtl"><head><title>باغ‌های کاشان</title>
<style>p > a { color: red }</style><script>if (a < b) document.write("<p>no</p>");</script></head>
<body><!-- a <b>comment</b> --><h1>باغ‌های کاشان</h1>
<p>باغ فین در <b>کاشان</b> است&zwnj;؛
کهن&nbsp;و زیبا &amp; سبز.</p><p title='a > b'>Its water &lt;spring&gt; is <i>cold</i>.</p>
<ul><li>یک<li>دو</li></ul><table><tr><td>A</td><td>B</td></tr><tr><td>1</td><td>2</td></tr></table>
<pre>  kept
    as it is</pre></body></html>"""


def text(content: str, row: int = 1, **fields: Any) -> Example:
    return Example(**{"kind": "text", "provenance": Provenance("p", row), "text": content} | fields)


def letters_of_lxml(page: str) -> str:
    from lxml import html

    tree = html.document_fromstring(page)
    for node in tree.xpath("//script|//style|//comment()"):
        node.drop_tree() if node.getparent() is not None else None
    return "".join("".join(tree.itertext()).split())


def test_a_page_has_the_letters_that_lxml_finds_and_the_lines_of_its_blocks() -> None:
    found = strip_html(PAGE)
    assert "".join(found.split()) == letters_of_lxml(PAGE)
    assert found.split("\n\n")[1] == "باغ‌های کاشان"
    assert "باغ فین در کاشان است\u200c؛ کهن\xa0و زیبا & سبز." in found.split("\n\n")
    assert "یک\nدو" in found
    assert "A\tB\n1\t2" in found
    assert "kept\n    as it is" in found


TAGS = st.sampled_from(["p", "div", "b", "i", "span", "li", "h2", "td", "em"])
NODES = st.recursive(
    st.text("abc سلام\n", max_size=12),
    lambda inner: st.tuples(TAGS, st.lists(inner, max_size=3)).map(
        lambda pair: f"<{pair[0]} class='x'>{' '.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=12,
)


@given(NODES)
@examples(150)
def test_any_tree_has_the_letters_that_lxml_finds(body: str) -> None:
    page = f"<html><body><div>x {body} y</div></body></html>"
    assert "".join(strip_html(page).split()) == letters_of_lxml(page)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a < b and b > c, R&D, <3", "a < b and b > c, R&D, <3"),
        ("<think>why</think> <image> <video> <input>x</input> <int> </s>", None),
        ("Use `<b>` or\n```html\n<p>x</p>\n```\nnow", None),
        ("ends with &amp; and &#1740; and &unknown; and &copy", "ends with & and ی and &unknown; and &copy"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("line one\nline <b>two</b>\nline three", "line one\nline two\nline three"),
        ("<section class='a'>in</section> <section>out</section>", "in\n\nout"),
        ("<script>alert(1)", "<script>alert(1)"),
        ("x <!-- open", "x <!-- open"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ('<img src=x onerror="a<b">text', 'text'),
    ],
)  # fmt: skip
def test_what_is_a_tag_and_what_is_not(before: str, after: str | None) -> None:
    if before.startswith("<script>"):
        assert strip_html(before) == "alert(1)"  # nothing closes it: a tag like any other
    elif before.startswith("<img"):
        assert strip_html(before).endswith(after or "")
    else:
        assert strip_html(before) == (before if after is None else after)


@pytest.mark.parametrize(
    "unit", ["<script>", '<a "', "<!--", "<", "<p a='", "&", "`", "```\n", "<p><", "&lt;", "</b", "<![CDATA["]
)
def test_a_megabyte_of_hostile_markup_is_worked_through(unit: str) -> None:
    """A quadratic pattern would take hours for it."""
    hostile = unit * ((1 << 20) // len(unit))
    assert "سلام" in strip_html(f"{hostile}\n<p class='a'>سلام</p>")


def test_conversations_keep_their_html_unless_told_otherwise() -> None:
    turns = (
        Message("user", "Make it <b>bold</b>"),
        Message("assistant", "<b>Done</b>"),
        Message("tool", "<b>"),
    )
    talk = Example("messages", Provenance("t", 1), messages=turns)
    assert list(Html(HtmlConfig(), Powers(), 0).apply([talk])) == [talk]
    (out,) = Html(HtmlConfig(conversations="clean"), Powers(), 0).apply([talk])
    assert isinstance(out, Example)
    assert [turn.content for turn in out.messages] == ["Make it bold", "Done", "<b>"]


def test_a_document_that_was_html_alone_is_removed_and_all_is_counted() -> None:
    step = Html(HtmlConfig(), Powers(), 0)
    kept, gone = step.apply([text("<p>a &amp; b</p>"), text("<div><br></div><script>x()</script>", 2)])
    assert isinstance(kept, Example)
    assert kept.text == "a & b"
    assert isinstance(gone, Removed)
    assert gone.reason == "nothing but HTML"
    assert step.counts == {"tag": 5, "entity": 1, "script or style": 1}


def run(
    examples: Sequence[Example], folder: Path, **fields: Any
) -> tuple[list[Outcome], Boilerplate, dict[str, Any]]:
    step = Boilerplate(BoilerplateConfig(**fields), Powers(), 0)
    surveys = []
    for number in range(2):
        path = folder / f"{number}.survey"
        part = examples[number::2]
        step.survey(part, path)
        surveys.append(Survey(path, len(part), 0))
    findings = step.decide(surveys, folder / "verdict", no_progress)
    return list(step.judge(examples, folder / "verdict", 0)), step, findings


def test_lines_that_recur_are_those_of_a_plain_count(tmp_path: Path) -> None:
    rng = random.Random(2)
    lines = [f"خط شماره {'الف' * n}" for n in range(30)]
    documents = [rng.sample(lines, rng.randrange(2, 12)) for _ in range(60)]
    outcomes, step, findings = run(
        [text("\n".join(d), n) for n, d in enumerate(documents)], tmp_path, min_documents=14
    )
    seen = Counter(line for document in documents for line in set(document))
    recurring = {line for line, number in seen.items() if number >= 14}
    assert findings["lines"] == len(recurring)
    assert findings["most"] == max(seen.values())
    assert 0 < len(recurring) < 30
    for document, outcome in zip(documents, outcomes, strict=True):
        left = [line for line in document if line not in recurring]
        if left:
            assert isinstance(outcome, Example)
            assert outcome.text == "\n".join(left)
        else:
            assert isinstance(outcome, Removed)
    assert step.counts["lines cut"] == sum(seen[line] for line in recurring)


def test_numbers_case_and_marks_make_no_difference_but_indentation_does(tmp_path: Path) -> None:
    assert compared_line("Page 3 of 12") == compared_line("PAGE 41 of 7.")
    assert compared_line("    return x") == compared_line("* * *") == compared_line("} ]") == ""
    pages = [
        text(f"Chapter {n} is about {'abcdefg'[n]}{n}xyz\nPage {n} of 7\n    return x", n) for n in range(7)
    ]
    outcomes, _, _ = run(pages, tmp_path)
    assert [one.text.count("\n") for one in outcomes if isinstance(one, Example)] == [1] * 7
    assert all(
        "Page" not in one.text and "return" in one.text for one in outcomes if isinstance(one, Example)
    )


def test_one_line_documents_and_conversations_are_left(tmp_path: Path) -> None:
    same = [text("Good morning", n) for n in range(9)]
    turns = (Message("user", "Hi\nyou"), Message("assistant", "Sure!\nHere it is."))
    talks = [Example("messages", Provenance("t", n), messages=turns) for n in range(9)]
    assert run([*same, *talks], tmp_path)[0] == [*same, *talks]
