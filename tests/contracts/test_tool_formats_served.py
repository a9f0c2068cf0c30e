"""Calls that must be made, in each format, by random models; the marks as special tokens and as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.infer.grammar import Grammars
from tanzim.infer.text import Detokeniser, special_tokens
from tanzim.serve.tool_calls import ToolCalls
from tanzim.serve.tool_formats import FORMATS
from tanzim.serve.tool_grammar import tool_grammar

PLACE: Any = {
    "type": "object",
    "properties": {
        "where": {"enum": ["Shiraz", "یزد", 'a "b" }\n']},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["where", "days"],
    "additionalProperties": False,
}
SCHEMAS: Any = {"weather": PLACE, "چراغ": {"type": "object", "additionalProperties": False}}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
ASK: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}
KINDS = [
    ("hermes", ["<tool_call>", "</tool_call>"]),
    ("llama", []),
    ("llama", ["<|python_tag|>"]),
    ("mistral", []),
    ("mistral", ["[TOOL_CALLS]"]),
    ("mistral", ["[TOOL_CALLS]", "[ARGS]"]),
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{len(kind[1])}")
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def tokenizer(kind: Any, tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    inner = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    inner.add_special_tokens(kind[1])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


@pytest.fixture
def client(
    kind: Any, tokenizer: PreTrainedTokenizerFast, tiny_model: LlamaForCausalLM, tmp_path: Path
) -> Iterator[openai.OpenAI]:
    torch.manual_seed(7)
    tiny_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for parameter in tiny_model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    engine = Engine(tiny_model, tokenizer, stop_ids=[2], base_hash="0" * 64)
    with (
        serving(engine, Lines(tokenizer), {"tiny": None}, tmp_path, tool_format=kind[0]) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def check(calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for name, arguments in calls:
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])
    return calls


def called(message: Any) -> list[tuple[str, str]]:
    return check([(call.function.name, call.function.arguments) for call in message.tool_calls or ()])


def test_required_calls_are_made(client: openai.OpenAI) -> None:
    names, most = set(), 0
    for seed in range(5):
        ask = {**ASK, "seed": seed, "temperature": 2, "tool_choice": "required"}
        one = client.chat.completions.create(**ask, parallel_tool_calls=False, max_tokens=120).choices[0]
        calls = called(one.message)
        assert len(calls) == 1
        assert (one.message.content, one.finish_reason) == (None, "tool_calls")
        with client.chat.completions.stream(**ask, parallel_tool_calls=False, max_tokens=120) as stream:
            final = stream.get_final_completion().choices[0]
        assert (called(final.message), final.message.content or "") == (calls, "")
        some = called(client.chat.completions.create(**ask, max_tokens=180).choices[0].message)
        names.update(name for name, _ in calls + some)
        most = max(most, len(some))
    assert len(names) > 1
    assert most > 1


def test_responses_call_what_is_named(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
    for name in SCHEMAS:
        wanted: Any = {"type": "function", "name": name}
        answer = client.responses.create(model="tiny", input="hi", tools=tools, tool_choice=wanted)
        (call,) = answer.output
        assert call.type == "function_call"
        assert call.name == name
        check([(call.name, call.arguments)])


@pytest.mark.parametrize("seed", range(4))
def test_at_most_one_call(kind: Any, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    format = FORMATS[kind[0]](special_tokens(tokenizer))
    grammar = tool_grammar(TOOLS, "auto", format, parallel=False)
    assert grammar is not None
    grammars = Grammars(tokenizer, len(tokenizer), [2])
    torch.manual_seed(seed)

    def go_on(text: str, most: int) -> list[str | dict[str, Any]]:
        matcher, detokeniser = grammars.matcher(grammar), Detokeniser(tokenizer, format.shown)
        calls = ToolCalls(format)
        told: list[str | dict[str, Any]] = []
        for token in tokenizer.encode(text, add_special_tokens=False):
            assert matcher.masked(torch.zeros(len(tokenizer)))[token] == 0
            matcher.take(token)
            told += calls.push(detokeniser.push(token))
        for _ in range(most):
            logits = matcher.masked(torch.randn(len(tokenizer)))
            token = int(torch.softmax(logits, 0).multinomial(1))
            if token == 2:
                break
            matcher.take(token)
            told += calls.push(detokeniser.push(token))
            if matcher.ended:
                break
        return told + calls.push(detokeniser.finish()) + calls.finish()

    begin = {"hermes": "Look: <tool_call>", "mistral": "Look: [TOOL_CALLS]", "llama": "{"}[kind[0]]
    *texts, call = go_on(begin, 500)
    assert "".join(map(str, texts)) == ("" if kind[0] == "llama" else "Look:")
    assert isinstance(call, dict)
    check([(call["function"]["name"], call["function"]["arguments"])])
    if kind[0] == "llama":
        assert all(isinstance(piece, str) for piece in go_on("Look: {", 60))


@pytest.mark.parametrize("kind", [KINDS[0], *KINDS[4:]], indirect=True)
def test_a_mark_is_not_spelled_out(kind: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grammar = tool_grammar(TOOLS, "auto", FORMATS[kind[0]](special_tokens(tokenizer)), parallel=False)
    assert grammar is not None
    matcher = Grammars(tokenizer, len(tokenizer), [2]).matcher(grammar)
    *begun, last = [tokenizer.convert_tokens_to_ids(character) for character in kind[1][0]]
    for token in begun:
        matcher.take(token)
    allowed = matcher.masked(torch.zeros(len(tokenizer)))
    assert allowed[last] == -torch.inf  # or calls beside the one that is held to a schema could be read
    assert allowed[begun[0]] == 0
