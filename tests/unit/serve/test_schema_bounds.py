"""However wrong a request is, what is said about it stays short: for every list and object it may hold."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tanzim.serve.errors import refusal
from tanzim.serve.jobs.schema import JobRequest
from tanzim.serve.routes.completions_schema import CompletionRequest
from tanzim.serve.routes.embeddings_schema import EmbeddingRequest
from tanzim.serve.routes.lora import LoadRequest, UnloadRequest
from tanzim.serve.routes.responses_schema import ResponseRequest
from tanzim.serve.routes.uploads_schema import CompleteRequest, UploadRequest
from tanzim.serve.schema import ChatRequest

REQUESTS = [
    ChatRequest, CompletionRequest, EmbeddingRequest, ResponseRequest, JobRequest, LoadRequest, UnloadRequest,
    UploadRequest, CompleteRequest,
]  # fmt: skip
MANY = 500
FAULTS = 300  # of all branches of all unions together
WRONG: list[Any] = [-5, {}, None, "x", {"a": 1}, [-1]]


def spots(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to every field, through fields that are objects themselves."""
    for name, field in model.model_fields.items():
        yield (field.alias or name,)
        for inner in models_in(field.annotation):
            for rest in spots(inner):
                yield (field.alias or name, *rest)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that may stand at a place, not in lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for one in typing.get_args(annotation):
            yield from models_in(one)


def faults(model: type[BaseModel], body: Any) -> int:
    try:
        model.model_validate(body)
    except ValidationError as error:
        found = error.errors()
        message = refusal([{**one, "loc": ("body", *one["loc"])} for one in found], body).body()["error"]
        assert len(message["message"]) < 1000
        return len(found)
    return 0


@pytest.mark.parametrize("model", REQUESTS)
def test_faults_are_not_counted_to_the_end(model: type[BaseModel]) -> None:
    assert faults(model, {f"k{number}": 1 for number in range(MANY)}) <= FAULTS
    for keys in set(spots(model)):
        for wrong in WRONG:
            for value in (
                [wrong] * MANY,
                [[wrong] * MANY] * 2,
                {f"k{number}": wrong for number in range(MANY)},
            ):
                body: Any = value
                for key in reversed(keys):
                    body = {key: body}
                assert faults(model, body) <= FAULTS, (keys, wrong)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(number: float) -> None:
    deep = {"type": "function", "name": "f", "parameters": {"a": [{"b": number}]}}
    tools = {"chat": [{"type": "function", "function": deep}], "response": [deep]}
    turn = [{"role": "user", "content": "a"}]
    for model, body in (
        (ChatRequest, {"model": "m", "messages": turn, "tools": tools["chat"]}),
        (ResponseRequest, {"model": "m", "input": "a", "tools": tools["response"]}),
        (JobRequest, {"model": "m", "training_file": "f", "tanzim": {"train": {"learning_rate": number}}}),
    ):
        with pytest.raises(ValidationError, match="not finite"):
            model.model_validate(body)
