"""Answers held to a schema or an expression: always what jsonschema and re accept, greedy or sampled."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.core.errors import ConfigError
from tanzim.infer.engine import Engine, Grammar, Request

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["گربه", "سگ", "cat"]},
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {
        "type": "object",
        "properties": {"child": {"$ref": "#/$defs/node"}},
        "required": ["child"],
        "additionalProperties": False,
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
                "required": ["next"],
                "additionalProperties": False,
            }
        },
    },
]
EXPRESSIONS = [r"[0-9]{3}-[a-f]{2,5}", r"(yes|no|شاید)", r"(می‌روم|نمی‌آیم)!{1,3}"]


@pytest.fixture
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(model, tokenizer, stop_ids=[2], base_hash="0" * 64)


def prompt(seed: int) -> list[int]:
    return torch.randint(3, 300, (9,), generator=torch.Generator().manual_seed(seed)).tolist()


def answers(engine: Engine, grammar: Grammar) -> list[str]:
    requests = [
        Request(prompt(i), max_new_tokens=240, temperature=0.0 if i % 2 else 1.2, seed=i, grammar=grammar)
        for i in range(8)
    ]
    found = engine.generate([*requests, Request(prompt(1), max_new_tokens=30)], max_batch=5)
    assert found[-1] == engine.generate([Request(prompt(1), max_new_tokens=30)])[0]  # neighbours are free
    whole = [answer.text for answer in found[:-1] if answer.finish_reason == "stop"]
    assert len(whole) >= 4
    return whole


@pytest.mark.parametrize("schema", SCHEMAS)
def test_answers_keep_to_the_schema(engine: Engine, schema: dict[str, Any]) -> None:
    for text in answers(engine, Grammar("json_schema", json.dumps(schema))):
        jsonschema.validate(json.loads(text), schema)


def test_answers_are_objects(engine: Engine) -> None:
    ids = [Request(prompt(i), max_new_tokens=200, temperature=1.0, seed=i, grammar=Grammar("json_object"))
           for i in range(12)]  # fmt: skip
    ended = [answer.text for answer in engine.generate(ids) if answer.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(text), dict) for text in ended)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_answers_match_the_expression(engine: Engine, expression: str) -> None:
    found = answers(engine, Grammar("regex", expression))
    assert all(re.fullmatch(expression, text) for text in found)


def test_log_probabilities_stay_those_of_the_model(engine: Engine, model: LlamaForCausalLM) -> None:
    request = Request(prompt(3), max_new_tokens=9, logprobs=0, grammar=Grammar("regex", "[0-9]{5}"))
    answer = engine.generate([request])[0]
    assert answer.logprobs is not None
    assert answer.text.isdigit()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([request.prompt_ids + list(answer.ids)])).logits[0]
    wanted = logits[len(request.prompt_ids) - 1 : -1].log_softmax(-1)[range(len(answer.ids)), answer.ids]
    found = torch.tensor([entry.logprob for entry in answer.logprobs])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_served_beside_free_answers(engine: Engine) -> None:
    scheduler = engine.server(3)
    grammars = [None, Grammar("regex", "a{3}b"), Grammar("json_schema", json.dumps(SCHEMAS[1]))]
    sequences = [
        engine.sequence(Request(prompt(i), max_new_tokens=60, grammar=grammar))
        for i, grammar in enumerate(grammars)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.busy:
        scheduler.step()
    free, expression, schema = (sequence.completion() for sequence in sequences)
    assert free == engine.generate([Request(prompt(0), max_new_tokens=60)])[0]
    assert (expression.text, expression.finish_reason) == ("aaab", "stop")
    jsonschema.validate(json.loads(schema.text), SCHEMAS[1])


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (Grammar("regex", "(["), "regular expression cannot be used"),
        (Grammar("json_schema", "{"), "not JSON"),
        (Grammar("json_schema", '{"type": "nonsense"}'), "JSON schema cannot be used"),
    ],
)
def test_wrong_grammars_are_refused(engine: Engine, grammar: Grammar, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine.sequence(Request(prompt(1), grammar=grammar))


def _nested(depth: int) -> str:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return json.dumps(schema)


@pytest.mark.parametrize("schema", ['{"$ref": "#"}', '{"allOf": [{"$ref": "#"}]}', _nested(400)])
def test_schemas_that_nothing_or_nobody_can_follow_are_refused(engine: Engine, schema: str) -> None:
    request = Request([1], grammar=Grammar("json_schema", schema))
    with pytest.raises(ConfigError, match=r"the JSON schema cannot be used: [^\n{]+$"):
        engine.sequence(request)
