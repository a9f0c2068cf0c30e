"""The renderer's policies and refusals, against counts and texts worked out by hand."""

import re

import pytest

from helpers.families import FAMILIES, make
from tanzim.core.errors import RenderError
from tanzim.core.records import Example, Message, Provenance
from tanzim.models import spans
from tanzim.models.render import Overlong, Renderer, fit

HERE = Provenance("talks.jsonl", 7)
TURNS = (
    Message("user", "one"),
    Message("assistant", "first"),
    Message("user", "two"),
    Message("assistant", "second"),
)


def messages(*turns):
    return Example("messages", HERE, turns)


def trained_text(renderer, tokenizer, example):
    one = renderer.render(example)
    return tokenizer.decode([i for i, w in zip(one.ids, one.weights, strict=True) if w])


@pytest.mark.parametrize(
    ("train_on", "weights", "expected"),
    [
        ("assistant", (None, None), "first<|im_end|>second<|im_end|>"),
        ("last", (None, None), "second<|im_end|>"),
        ("assistant", (0.0, None), "second<|im_end|>"),
        ("assistant", (None, 0.0), "first<|im_end|>"),
        ("last", (1.0, None), "first<|im_end|>second<|im_end|>"),
    ],
)
def test_which_turns_are_trained(train_on, weights, expected):
    tokenizer = make("chatml")
    renderer = Renderer(tokenizer, train_on=train_on)
    turns = [
        TURNS[0],
        Message("assistant", "first", weight=weights[0]),
        TURNS[2],
        Message("assistant", "second", weight=weights[1]),
    ]
    assert trained_text(renderer, tokenizer, messages(*turns)) == expected


def test_a_fractional_weight_reaches_every_token_of_its_turn():
    one = Renderer(make("chatml")).render(messages(TURNS[0], Message("assistant", "first", weight=0.25)))
    assert set(one.weights) == {0.0, 0.25}


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_to_find_a_span_agree(family, monkeypatch):
    renderer = Renderer(make(family))
    fast = renderer.render(messages(*TURNS))
    monkeypatch.setattr(spans, "_holds_end", lambda message, markers: True)
    assert renderer.render(messages(*TURNS)) == fast


@pytest.mark.parametrize("family", FAMILIES)
def test_together_is_as_one_by_one(family):
    renderer = Renderer(make(family))
    examples = [messages(*TURNS[:2]), messages(*TURNS), Example("text", HERE, text="plain text")]
    assert renderer.render_many(examples) == [renderer.render(example) for example in examples]
    assert renderer.render_many([]) == []


def test_stop_ids_are_the_turn_ends_and_the_eos():
    ends = {"llama3": ["<|eot_id|>", "<|eom_id|>"], "phi": ["<|end|>", "<|endoftext|>"]}
    ends |= {"gemma": ["<end_of_turn>", "<eos>"], "chatml": ["<|im_end|>"]}
    for family, expected in ends.items():
        tokenizer = make(family)
        assert Renderer(tokenizer).stop_ids == tuple(tokenizer.convert_tokens_to_ids(expected))


def test_tokens_that_swallow_white_space_keep_the_mask():
    tokenizer = make("phi", strips=True)
    assert trained_text(Renderer(tokenizer), tokenizer, messages(*TURNS)) == "first<|end|>second<|end|>"


def test_raw_text_is_trained_whole_with_its_end():
    tokenizer = make("chatml")
    one = Renderer(tokenizer).render(Example("text", HERE, text="می‌خواهم"))
    assert list(one.ids) == [*tokenizer("می‌خواهم").input_ids, tokenizer.eos_token_id]
    assert one.weights == (0.0, *[1.0] * (len(one.ids) - 1))


def test_a_tokenizer_without_template_gets_the_plain_one():
    tokenizer = make("chatml")
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer)
    assert renderer.template["source"] == "default"
    one = renderer.render(messages(*TURNS[:2]))
    assert tokenizer.decode(one.ids) == "### User:\none\n\n### Assistant:\nfirst<|im_end|>\n\n"
    assert trained_text(renderer, tokenizer, messages(*TURNS[:2])) == "first<|im_end|>"


def test_what_is_kept_for_the_manifest():
    template = Renderer(make("chatml")).template
    assert template["default_system"] == "You help."
    assert template["stop"] == ["<|im_end|>"]
    assert Renderer(make("llama3")).template["default_system"] is None
    assert Renderer(make("gemma")).template["folded"] == ["system", "thinking", "tool", "tool_calls", "tools"]


def test_the_date_never_moves():
    tokenizer = make("llama3")
    text = tokenizer.decode(Renderer(tokenizer).render(messages(*TURNS)).ids)
    assert re.search("Today: (.*)\n", text)[1] == "26 Jul 2024"


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (messages(Message("user", "hi")), "no token of this conversation would be trained"),
        (messages(TURNS[0], Message("assistant", "x", weight=0.0)), "no token of this conversation"),
        (Example("text", HERE), "the text is empty"),
        (Example("pair", HERE, TURNS[:1]), "kind 'pair'"),
    ],
)
def test_refusals_name_the_example(example, said):
    with pytest.raises(RenderError, match=said) as caught:
        Renderer(make("chatml")).render(example)
    assert caught.value.where == "talks.jsonl, row 7"


def test_a_template_that_refuses_is_named():
    with pytest.raises(RenderError, match="Roles must alternate") as caught:
        Renderer(make("gemma")).render(messages(TURNS[0], TURNS[2], TURNS[3]))
    assert caught.value.where == "talks.jsonl, row 7"


def edited(family, old, new):
    tokenizer = make(family)
    assert old in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    return tokenizer


def test_a_template_without_ends_is_refused():
    with pytest.raises(RenderError, match="would never stop"):
        Renderer(edited("gemma", "+ '<end_of_turn>'", ""))


def test_ends_only_at_the_last_turn_refuse_the_others():
    tokenizer = edited(
        "gemma", "m.content | trim + '<end_of_turn>'", "m.content + (eos_token if loop.last else '')"
    )
    with pytest.raises(RenderError, match="end of turn 2 would not be trained"):
        Renderer(tokenizer).render(messages(*TURNS))
    assert trained_text(Renderer(tokenizer, train_on="last"), tokenizer, messages(*TURNS)) == "second<eos>"


def test_the_self_test_sees_a_template_that_changes_answers():
    with pytest.raises(RenderError, match="self-test failed: a trained turn reads"):
        Renderer(edited("gemma", "m.content | trim", "m.content | trim | replace('Hello', 'Bye')"))


def test_fit():
    one = Renderer(make("chatml")).render(messages(*TURNS))
    length = len(one.ids)
    cut_at = one.segments[-2].start + 1  # inside the second answer
    assert fit(one, length, "error") is one
    assert fit(one, length - 1, "drop") is None
    assert fit(one, 5, "truncate") is None
    with pytest.raises(RenderError, match=f"has {length} tokens and the limit is 5") as caught:
        fit(one, 5, "error")
    assert caught.value.where == "talks.jsonl, row 7"
    cut = fit(one, cut_at, "truncate")
    assert (cut.ids, cut.weights) == (one.ids[:cut_at], one.weights[:cut_at])
    assert cut.segments[-1].end == cut_at
    counts = Overlong()
    for limit, policy in (
        (length, "drop"),
        (length - 1, "drop"),
        (cut_at, "truncate"),
        (length - 1, "truncate"),
    ):
        counts = counts.counting(one, fit(one, limit, policy))
    assert counts == Overlong(4, 3, 1, 2, 1, length)
