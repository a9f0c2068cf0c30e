"""The renderer against transformers: ids of apply_chat_template, masks of `{% generation %}`."""

import pytest

from helpers.families import FAMILIES, make
from helpers.talks import talk
from tanzim.core.records import Example, Provenance
from tanzim.models.fold import fold
from tanzim.models.render import Renderer
from tanzim.models.template import as_dict

# What each family's template knows: system, tools, thinking.
KNOWS = {
    "chatml": (True, True, False),
    "llama3": (True, True, False),
    "mistral": (True, True, False),
    "gemma": (False, False, False),
    "qwen3": (True, True, True),
    "phi": (True, False, False),
    "reasoner": (True, False, True),
}
HERE = Provenance("random", 1)
SEEDS = range(60)


def oracle(family, messages, tools, *, thinking, **options):
    return make(family, marked=True).apply_chat_template(
        [as_dict(message) for message in messages],
        tools=tools or None,
        enable_thinking=thinking,
        date_string="26 Jul 2024",
        return_dict=True,
        **options,
    )


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_mask(family, thinking):
    system, tools, thinks = KNOWS[family]
    renderer = Renderer(make(family), thinking=thinking)
    for seed in SEEDS:
        messages, functions = talk(seed, system=system, tools=tools, thinking=thinks)
        one = renderer.render(Example("messages", HERE, tuple(messages), tuple(functions)))
        expected = oracle(family, messages, functions, thinking=thinking, return_assistant_tokens_mask=True)
        assert list(one.ids) == expected["input_ids"], seed
        assert [int(w) for w in one.weights] == expected["assistant_masks"], seed


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_words_that_look_like_the_template(family, thinking):
    system, tools, thinks = KNOWS[family]
    renderer = Renderer(make(family), thinking=thinking)
    hostile = (*FAMILIES[family][2], "<think>", "assistant", "AbA", "CdC", "A", "C")
    for seed in SEEDS:
        messages, functions = talk(seed, system=system, tools=tools, thinking=thinks, hostile=hostile)
        one = renderer.render(Example("messages", HERE, tuple(messages), tuple(functions)))
        expected = oracle(family, messages, functions, thinking=thinking, return_assistant_tokens_mask=True)
        assert list(one.ids) == expected["input_ids"], seed
        assert [int(w) for w in one.weights] == expected["assistant_masks"], (seed, messages)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts(family, thinking):
    system, tools, thinks = KNOWS[family]
    renderer = Renderer(make(family), thinking=thinking)
    for seed in SEEDS:
        messages, functions = talk(seed, system=system, tools=tools, thinking=thinks)
        expected = oracle(family, messages[:-1], functions, thinking=thinking, add_generation_prompt=True)
        assert renderer.prompt(messages[:-1], functions) == expected["input_ids"], seed


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_cover_all_tokens_in_order(family):
    system, tools, thinks = KNOWS[family]
    renderer = Renderer(make(family))
    for seed in SEEDS:
        messages, functions = talk(seed, system=system, tools=tools, thinking=thinks)
        one = renderer.render(Example("messages", HERE, tuple(messages), tuple(functions)))
        edges = [0, *(segment.end for segment in one.segments)]
        assert [segment.start for segment in one.segments] == edges[:-1]
        assert edges[-1] == len(one.ids)
        trained = [segment for segment in one.segments if segment.trained]
        assert len(trained) == sum(message.role == "assistant" for message in messages)
        assert all(one.ids[segment.end - 1] in renderer.stop_ids for segment in trained)


@pytest.mark.parametrize("family", ["gemma", "phi", "reasoner"])
def test_folded_parts_are_kept_and_masked(family):
    renderer = Renderer(make(family))
    learnt = renderer._learnt
    for seed in SEEDS:
        messages, functions = talk(seed, system=True, tools=True, thinking=True)
        one = renderer.render(Example("messages", HERE, tuple(messages), tuple(functions)))
        folded, left = fold(messages, functions, learnt)
        assert not left
        expected = oracle(family, folded, left, thinking=False, return_assistant_tokens_mask=True)
        assert list(one.ids) == expected["input_ids"]
        assert [int(w) for w in one.weights] == expected["assistant_masks"]
