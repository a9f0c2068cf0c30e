"""The preview is read back and compared with the conversation it was made of."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tanzim.core.records import Provenance, Rendered, Segment
from tanzim.pipeline.preview_page import preview_lines, preview_page, token_texts

START, END = 256, 257
QUESTION = "سفارش ۴۸۲۱ نرسیده و می\u200cخواهم <b>پولم</b> برگردد.\nINV-77 \u202eevil \x1b[31m 🌷"
ANSWER = '{"نوع": "بازپرداخت"}'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A byte tokenizer: every Persian letter is two tokens, the flower four."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|start|>", "<|end|>"])
    return made


@pytest.fixture(scope="module")
def sample(tokenizer):
    ids, weights, segments = [], [], []
    for role, text in (("user", QUESTION), ("assistant", ANSWER)):
        begin, trained = len(ids), role == "assistant"
        head = tokenizer.encode(f"<|start|>{role}\n").ids
        body = tokenizer.encode(f"{text}<|end|>").ids
        ids += head + body
        weights += [0.0] * len(head) + [float(trained)] * len(body)
        segments.append(Segment(begin, len(ids), role, trained))
    rendered = Rendered(tuple(ids), tuple(weights), tuple(segments), Provenance("پشتیبانی.jsonl", 7))
    return rendered, token_texts(ids, lambda i: tokenizer.decode(i, skip_special_tokens=False), segments)


class Spans(HTMLParser):
    """Collects the text shown per kind of token, and every title."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.on, self.off = "", ""
        self.titles: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.stack.append(values.get("class") or "")
        if "tok" in (values.get("class") or "").split() and "title" in values:
            self.titles.append(values["title"])

    def handle_endtag(self, tag):
        self.stack.pop()

    def handle_data(self, data):
        classes = " ".join(self.stack).split()
        if "sample" not in classes or "tok" not in classes or "blank" in classes or "mark" in classes:
            return
        if "on" in classes:
            self.on += data
        else:
            self.off += data


def read(html: str) -> Spans:
    spans = Spans()
    spans.feed(html[html.index("<article") : html.rindex("</article>") + len("</article>")])
    return spans


def test_token_texts_are_whole_characters_and_add_up(sample, tokenizer):
    rendered, texts = sample
    assert "".join(texts) == tokenizer.decode(list(rendered.ids), skip_special_tokens=False)
    assert not any("\ufffd" in text for text in texts)
    flower = texts.index("🌷")
    assert texts[flower - 3 : flower] == ["", "", ""]


def test_a_real_replacement_character_ends_the_joining(tokenizer):
    ids = tokenizer.encode("a\ufffdb").ids
    assert "".join(token_texts(ids, tokenizer.decode)) == "a\ufffdb"


def test_page_shows_every_token_once_and_trained_ones_as_trained(sample):
    spans = read(preview_page([sample], special_ids={START, END}, stop_ids={END}))
    assert spans.on == f"{ANSWER}<|end|>"
    hidden = QUESTION.replace("\u202e", "").replace("\x1b", "")
    assert spans.off == f"<|start|>user\n{hidden}<|end|><|start|>assistant\n"
    ids = [int(i) for title in spans.titles for i in title[3:].partition(":")[0].split(" + ")]
    assert tuple(ids) == sample[0].ids


def test_page_says_counts_ends_and_keeps_text_in_one_block_per_turn(sample):
    html = preview_page([sample], notes=["<model>"], special_ids={START, END}, stop_ids={END})
    assert html.count("✓ end trained") == 1
    assert html.count('<div class="text" dir="auto" lang="fa">') == 2
    assert "&lt;model&gt;" in html
    assert "RLO</bdi>" in html
    assert "\u202e" not in html
    trained = sum(weight > 0 for weight in sample[0].weights)
    assert f"{trained} trained" in html


def test_an_untrained_end_is_told(sample):
    rendered, texts = sample
    weights = (*rendered.weights[:-1], 0.0)
    changed = Rendered(rendered.ids, weights, rendered.segments, rendered.provenance)
    assert "! end ignored" in preview_page([(changed, texts)], stop_ids={END})
    assert "! no end token" in preview_page([(changed, texts)], stop_ids={9999})


def test_parts_of_one_turn_stand_in_one_block(sample):
    rendered, texts = sample
    user, answer = rendered.segments
    parts = (user, Segment(answer.start, answer.start + 11, "assistant", False),
             Segment(answer.start + 11, answer.end, "assistant", True))  # fmt: skip
    cut = Rendered(rendered.ids, rendered.weights, parts, rendered.provenance)
    assert preview_page([(cut, texts)]) == preview_page([sample])


def test_terminal_lines_hold_the_text_and_nothing_that_steers_the_terminal(sample):
    lines = preview_lines([sample], special_ids={START, END})
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=False).print(*lines, sep="\n")
    shown = out.getvalue()
    assert "می\u200c╎خواهم" in shown
    assert "⟨RLO⟩evil ⟨␛⟩[31m" in shown
    assert "\x1b" not in shown
    assistant = lines[-1]
    assert any("underline" in str(span.style) for span in assistant.spans)
