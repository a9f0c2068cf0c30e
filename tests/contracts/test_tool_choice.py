"""Calls that must be made, by random models: whatever the weights, it is one that its schema takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.infer.grammar import Grammars
from tanzim.serve.tool_calls import ToolCalls
from tanzim.serve.tool_formats import Hermes
from tanzim.serve.tool_grammar import tool_grammar

PLACE: Any = {
    "type": "object",
    "properties": {
        "where": {"$ref": "#/$defs/place"},  # to the root of its own schema
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["where", "days"],
    "additionalProperties": False,
    "$defs": {"place": {"enum": ["Shiraz", "یزد", 'a "b"\n']}},
}
SWITCH: Any = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": PLACE, "چراغ": SWITCH, "now": {"type": "object", "additionalProperties": False}}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": PLACE}},
    {"type": "function", "function": {"name": "چراغ", "parameters": SWITCH}},
    {"type": "function", "function": {"name": "now"}},
]
ASK: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hi"}],
    "tools": TOOLS,
    "max_tokens": 120,
}


@pytest.fixture(params=range(3))
def client(
    request: pytest.FixtureRequest,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> Iterator[openai.OpenAI]:
    torch.manual_seed(100 + request.param)
    for parameter in tiny_model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    with (
        serving(engine, Lines(tiny_tokenizer), {"tiny": None}, tmp_path) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def check(calls: list[tuple[str, str]]) -> None:
    for name, arguments in calls:
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])


def called(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def test_a_call_is_made_where_one_is_required(client: openai.OpenAI) -> None:
    names = set()
    for seed in range(8):
        ask = {**ASK, "seed": seed, "temperature": 1.5, "parallel_tool_calls": False}
        choice = client.chat.completions.create(**ask, tool_choice="required").choices[0]
        calls = called(choice.message)
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert len(calls) == 1
        check(calls)
        names.add(calls[0][0])
        with client.chat.completions.stream(**ask, tool_choice="required") as stream:
            final = stream.get_final_completion().choices[0]
        assert called(final.message) == calls
        assert final.finish_reason == "tool_calls"
    assert len(names) > 1


def test_several_calls_where_they_may_be(client: openai.OpenAI) -> None:
    most = 0
    for seed in range(8):
        ask = {**ASK, "seed": seed, "temperature": 2, "max_tokens": 200}
        choice = client.chat.completions.create(**ask, tool_choice="required").choices[0]
        calls = called(choice.message)
        check(calls)
        assert calls
        most = max(most, len(calls))
        assert choice.finish_reason in ("tool_calls", "length")
    assert most > 1


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_the_function_that_is_named_is_called_once(client: openai.OpenAI, name: str) -> None:
    wanted: Any = {"type": "function", "function": {"name": name}}
    choice = client.chat.completions.create(**ASK, tool_choice=wanted, temperature=1).choices[0]
    (call,) = called(choice.message)
    assert call[0] == name
    check([call])
    assert choice.finish_reason == "tool_calls"


def test_responses_hold_to_it_too(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "parameters": None, **tool["function"]} for tool in TOOLS]
    wanted: Any = {"type": "function", "name": "weather"}
    answer = client.responses.create(model="tiny", input="hi", tools=tools, tool_choice=wanted)
    (call,) = answer.output
    assert call.type == "function_call"
    assert call.name == "weather"
    check([(call.name, call.arguments)])
    assert answer.tool_choice.to_dict() == wanted  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(5))
def test_at_most_one_call_after_any_text(tiny_tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    hermes = Hermes({})
    grammar = tool_grammar(TOOLS, "auto", hermes, parallel=False)
    assert grammar is not None
    torch.manual_seed(seed)
    matcher = Grammars(tiny_tokenizer, len(tiny_tokenizer), [2]).matcher(grammar)
    said: list[int] = tiny_tokenizer.encode("Let me <look>:\n<tool_call>", add_special_tokens=False)
    for token in said:
        allowed = matcher.masked(torch.zeros(len(tiny_tokenizer)))
        assert allowed[token] == 0
        assert allowed[2] == 0  # the text may end anywhere
        matcher.take(token)
    # A call has begun: whatever is drawn now, it is one that the schema takes, and nothing follows it.
    while not matcher.ended:
        token = int(torch.softmax(matcher.masked(torch.randn(len(tiny_tokenizer))), 0).multinomial(1))
        matcher.take(token)
        said.append(token)
    calls = ToolCalls(hermes)
    told = calls.push(tiny_tokenizer.decode(said, skip_special_tokens=True)) + calls.finish()
    assert told[0] == "Let me <look>:"
    assert calls.count == len(told) - 1 == 1
    assert isinstance(told[1], dict)
    check([(told[1]["function"]["name"], told[1]["function"]["arguments"])])


def test_what_does_not_fit_together_is_refused(client: openai.OpenAI) -> None:
    strange = {"type": "function", "function": {"name": "x", "parameters": {"type": "strange"}}}
    for fields, message in (
        ({"tools": [{"type": "function"}], "tool_choice": "required"}, "no function with a name"),
        ({"tools": [], "tool_choice": "required"}, "needs tools"),
        ({"tools": [strange], "tool_choice": "required"}, "strange"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "two kinds"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            client.chat.completions.create(**{**ASK, **fields})
