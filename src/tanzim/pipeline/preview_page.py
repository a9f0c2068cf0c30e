"""Data preview: which tokens are trained and which are ignored, as an offline page and for the terminal.

Tokens stay inline in one block per turn, without gaps, so that letters join and right-to-left text
reads right-to-left although it is cut into tokens. Colour is never the only sign: trained tokens are
underlined, too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from tanzim.core.page import Child, Html, escape, facts, hidden_name, join, language, note, page, path, tag
from tanzim.core.records import Rendered, Segment
from tanzim.core.units import count, number

Sample = tuple[Rendered, Sequence[str]]
_MOST_JOINED = 8  # tokens joined to make whole characters; a character has at most 4 bytes
_SEEN = re.compile("[ \t\n\u00a0\u200c\u200d]")
_CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def token_texts(
    ids: Sequence[int], decode: Callable[[list[int]], str], segments: Sequence[Segment] = ()
) -> list[str]:
    """Return the text of each token; a token that holds only part of a character has the empty text.

    The text of such a token stands with the token that completes the character. Nothing is joined
    across the ends of ``segments``.

    Args:
        ids: token ids, length T.
        decode: ids → text, special tokens kept, spaces not cleaned up.
        segments: the turns that cover the T tokens.

    """
    texts = [""] * len(ids)
    ends = sorted({segment.end for segment in segments} | {len(ids)})
    before, start = 0, 0
    for end in range(1, len(ids) + 1):
        # Decoding with the tokens before keeps the space that some tokenizers drop at a text's start.
        whole = decode(list(ids[before:end]))
        if whole.endswith("\ufffd") and end not in ends and end - start < _MOST_JOINED:
            continue
        texts[end - 1] = whole[len(decode(list(ids[before:start]))) :]
        before, start = start, end
    return texts


@dataclass(frozen=True, slots=True)
class _Group:
    """Tokens that are shown as one: their ids, text, largest loss weight, and whether it is special."""

    ids: tuple[int, ...]
    text: str
    weight: float
    special: bool


def _groups(
    sample: Rendered, texts: Sequence[str], segment: Segment, special: Collection[int]
) -> Iterator[_Group]:
    start = segment.start
    for index in range(segment.start, segment.end):
        if texts[index] or index == segment.end - 1:
            span = slice(start, index + 1)
            ids = sample.ids[span]
            yield _Group(ids, texts[index], max(sample.weights[span]), any(i in special for i in ids))
            start = index + 1


def _turns(sample: Rendered) -> Iterator[Segment]:
    """Yield the turns: neighbouring segments of one role, trained or not, belong to one."""
    for role, group in itertools.groupby(sample.segments, key=lambda segment: segment.role):
        parts = list(group)
        yield Segment(parts[0].start, parts[-1].end, role, any(part.trained for part in parts))


def _trained(sample: Rendered, start: int = 0, end: int | None = None) -> int:
    return sum(weight > 0 for weight in sample.weights[start:end])


def preview_page(
    samples: Sequence[Sample],
    *,
    title: str = "Data preview",
    notes: Sequence[str] = (),
    special_ids: Collection[int] = (),
    stop_ids: Collection[int] = (),
) -> str:
    """Return an offline HTML page that shows each sample's tokens, trained ones marked.

    Args:
        samples: rendered conversations, each with the text of its tokens from `token_texts`.
        title: the page's heading.
        notes: remarks to print above the samples, such as the model and the template.
        special_ids: tokens to show as special (turn marks, end of sequence).
        stop_ids: tokens that end an answer; whether they are trained is said for each turn.

    """
    total = sum(len(sample.ids) for sample, _ in samples)
    trained = sum(_trained(sample) for sample, _ in samples)
    share = f"{100 * trained / total:.1f} %" if total else "none"
    counts = facts(
        [
            ("Examples shown", number(len(samples))),
            ("Tokens", number(total)),
            ("Trained tokens", f"{number(trained)} ({share})"),
            ("Ignored tokens", number(total - trained)),
        ]
    )
    head = tag("header", tag("h1", title), _legend())
    shown = [_sample(index, *sample, special_ids, stop_ids) for index, sample in enumerate(samples, start=1)]
    return page(title, head, counts, [note(text) for text in notes], shown)


def _legend() -> Html:
    def two(kind: str, text: str) -> list[Html]:
        return [tag("span", text, class_=f"tok {kind}"), tag("span", " token", class_=f"tok {kind} odd")]

    entries: list[list[Child]] = [
        [*two("on", "trained"), " the loss is taken over it"],
        [*two("off", "ignored"), " context only"],
        [tag("bdi", "<mark>", class_="tok off special"), " of the template"],
        [tag("span", "a", _visible(" "), "b", class_="text"), " space"],
        [tag("bdi", "↵", class_="blank"), " line break"],
        [tag("bdi", "می", _visible("\u200c"), "رود", lang="fa"), " half-space (ZWNJ)"],
    ]
    listed = tag("ul", [tag("li", *entry) for entry in entries], class_="key")
    return join([listed, tag("p", "Point at a token to see its id.", class_="soft")])


def _sample(
    index: int, sample: Rendered, texts: Sequence[str], special: Collection[int], stop: Collection[int]
) -> Html:
    turns = []
    for segment in _turns(sample):
        trained = _trained(sample, segment.start, segment.end)
        said: list[Child] = [tag("b", segment.role), count(segment.end - segment.start, "token")]
        said.append(f", {number(trained)} trained" if trained else ", ignored")
        if trained and stop:
            said.append(tag("div", _ending(sample, segment, stop)))
        tokens = [_token(i, group) for i, group in enumerate(_groups(sample, texts, segment, special))]
        turns.append(
            tag(
                "div",
                tag("div", *said, class_="role"),
                tag("div", *tokens, class_="text", dir="auto", lang=language("".join(texts)) or None),
                class_="turn",
            )
        )
    counts = f" · {number(len(sample.ids))} tokens, {number(_trained(sample))} trained"
    where = sample.provenance
    name = tag("h3", f"{index} · ", path(where.source), f", row {where.row}{counts}")
    return tag("article", name, *turns, class_="sample")


def _ending(sample: Rendered, segment: Segment, stop: Collection[int]) -> str:
    for index in range(segment.end - 1, segment.start - 1, -1):
        if sample.ids[index] in stop:
            return "✓ end trained" if sample.weights[index] > 0 else "! end ignored"
    return "! no end token"


def _token(index: int, group: _Group) -> Html:
    ids = " + ".join(map(str, group.ids))
    weight = "" if group.weight in (0, 1) else f", weight {number(group.weight)}"
    title = f"id {ids}: {'trained' if group.weight > 0 else 'ignored'}{weight}"
    kind = f"tok {'on' if group.weight > 0 else 'off'}{' odd' if index % 2 else ''}"
    if group.special:
        return tag("bdi", _visible(group.text), class_=f"{kind} special", dir="ltr", title=title)
    return tag("span", _visible(group.text), class_=kind, title=title)


def _visible(text: str) -> Html:
    """Return ``text`` as markup in which blanks and half-spaces can be seen and still work as themselves."""
    parts, end = [], 0
    for match in _SEEN.finditer(text):
        parts.append(escape(text[end : match.start()]))
        parts.append(_MARKS[match.group()])
        end = match.end()
    return Html("".join([*parts, escape(text[end:])]))


_MARKS = {
    " ": tag("span", " ", class_="space"),
    "\u00a0": tag("span", "\u00a0", class_="space hard", title="no-break space"),
    "\t": Html(tag("bdi", "⇥", class_="blank") + "\t"),
    "\n": Html(tag("bdi", "↵", class_="blank") + "\n"),
    "\u200c": tag("span", "\u200c", class_="zwnj", title="half-space (ZWNJ)"),
    "\u200d": tag("span", "\u200d", class_="zwnj", title="joiner (ZWJ)"),
}


_ON, _OFF, _STRONG = Style(color="green", underline=True), Style(dim=True), Style(bold=True)


def _style(group: _Group) -> Style:
    style = _ON if group.weight > 0 else _OFF
    return style + _STRONG if group.special else style


def preview_lines(samples: Sequence[Sample], *, special_ids: Collection[int] = ()) -> list[Text]:
    """Return the same for the terminal: a legend, then a heading and a block per turn for each sample.

    Args:
        samples: rendered conversations, each with the text of its tokens from `token_texts`.
        special_ids: tokens to show as special.

    """
    legend = (("trained", _ON), "  ", ("ignored", _OFF), "  ", ("<mark>", _OFF + _STRONG))
    lines = [Text.assemble(*legend, " of the template  ↵ line break  ╎ half-space (ZWNJ)")]
    for index, (sample, texts) in enumerate(samples, start=1):
        counts = f"{number(len(sample.ids))} tokens, {number(_trained(sample))} trained"
        lines.append(Text(f"\n{index} · {_plain(str(sample.provenance))} · {counts}", style=_STRONG))
        for segment in _turns(sample):
            line = Text.assemble((f"{segment.role}: ", "cyan"))
            shown = ((_style(group), group.text) for group in _groups(sample, texts, segment, special_ids))
            for style, run in itertools.groupby(shown, key=lambda pair: pair[0]):
                line.append(_plain("".join(text for _, text in run)), style)
            lines.append(line)
    return lines


def _plain(text: str) -> str:
    """Return ``text`` for a terminal: blanks visible, and no character that could steer the terminal."""
    text = _CONTROL.sub(lambda match: f"⟨{hidden_name(match.group())}⟩", text)
    return text.replace("\n", "↵\n").replace("\u200c", "\u200c╎")
