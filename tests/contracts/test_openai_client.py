"""The server against the unmodified ``openai`` client, over a real socket."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from helpers.serving import Lines
from tanzim.core.records import Json, Message
from tanzim.infer.engine import Engine, Request
from tanzim.infer.paged_scheduler import PagedScheduler

TOOL: Json = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tuned"]
    assert client.models.retrieve("tuned").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("ghost")


@pytest.mark.parametrize(("model", "adapter"), [("tiny", None), ("tuned", "default")])
def test_answer_is_the_engines(
    client: openai.OpenAI, engine: Engine, model: str, adapter: str | None
) -> None:
    answer = client.chat.completions.create(model=model, messages=user("hello"), temperature=0)
    ids = Lines(engine.tokenizer).prompt([Message("user", "hello")])
    expected = engine.generate([Request(ids, adapter, max_new_tokens=24)])[0]
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == (expected.text, expected.finish_reason)
    assert choice.message.role == "assistant"
    assert answer.model == model
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == expected.kept
    assert answer.usage.total_tokens == len(ids) + expected.kept


def test_base_and_adapter_differ(client: openai.OpenAI) -> None:
    said = [
        client.chat.completions.create(model=m, messages=user("hello"), temperature=0).choices[0]
        for m in ("tiny", "tuned", "tiny")
    ]
    texts = [choice.message.content for choice in said]
    assert texts[0] == texts[2] != texts[1]


def test_stream_joins_to_the_whole(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tuned", "messages": user("سلام"), "seed": 5, "logprobs": True}
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    text = "".join(choice.delta.content or "" for choice in choices)
    assert text == whole.choices[0].message.content
    assert [c.finish_reason for c in choices] == [None] * (len(choices) - 1) + ["length"]
    assert len(choices) > 4
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    streamed = [t.token for c in choices if c.logprobs for t in c.logprobs.content or ()]
    assert whole.choices[0].logprobs is not None
    assert streamed == [t.token for t in whole.choices[0].logprobs.content or ()]


def test_stop(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": user("hello"), "temperature": 0}
    free = client.chat.completions.create(**ask).choices[0].message.content or ""
    stop = free[3:5]
    held = client.chat.completions.create(**ask, stop=[stop]).choices[0]
    assert held.message.content == free[: free.index(stop)]
    assert held.finish_reason == "stop"
    streamed = client.chat.completions.create(**ask, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == held.message.content


def test_seed_and_choices(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": user("hi"), "temperature": 1.2, "n": 3}
    first, again, other = (client.chat.completions.create(**ask, seed=s).choices for s in (7, 7, 8))
    assert [c.message.content for c in first] == [c.message.content for c in again]
    assert [c.message.content for c in first] != [c.message.content for c in other]
    assert [c.index for c in first] == [0, 1, 2]
    assert len({c.message.content for c in first}) == 3
    said = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, seed=7, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == [c.message.content for c in first]


def test_logprobs(client: openai.OpenAI, engine: Engine) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=user("hi"), temperature=0, max_tokens=9, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert answer.usage is not None
    assert len(logprobs.content) == answer.usage.completion_tokens
    told = b"".join(bytes(entry.bytes or ()) for entry in logprobs.content)
    assert told.decode(errors="replace").rstrip("\ufffd") == (answer.choices[0].message.content or "").rstrip(
        "\ufffd"
    )
    ids = Lines(engine.tokenizer).prompt([Message("user", "hi")])
    expected = engine.generate([Request(ids, max_new_tokens=9)])[0]
    found = engine.logprobs(ids, list(expected.ids[: expected.kept]), None)
    assert [entry.logprob for entry in logprobs.content] == pytest.approx(found, abs=1e-4)
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].token == entry.token


def test_tools_and_turns_reach_the_prompt(client: openai.OpenAI, engine: Engine) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    messages: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    text = "['look']system:be brief\nuser:ab\nassistant:['look']\ntool:42\n>"
    answer = client.chat.completions.create(
        model="tiny", messages=messages, tools=[TOOL], temperature=0, max_completion_tokens=8
    )
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    assert answer.choices[0].message.content == engine.generate([Request(ids, max_new_tokens=8)])[0].text
    bare = client.chat.completions.create(
        model="tiny", messages=messages, tools=[TOOL], tool_choice="none", temperature=0, max_tokens=8
    )
    assert bare.usage is not None
    assert bare.usage.prompt_tokens < len(ids)


def test_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="ghost", messages=user("hi"))
    assert caught.value.code == "model_not_found"
    assert "tiny, tuned" in str(caught.value)


def test_too_long_prompt(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=user("x" * 400))
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.type",
        ),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 2}, None),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "nothing"}},
                }
            },
            "response_format",
        ),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, None),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, None),
        ({"logit_bias": {"5": 10}}, "logit_bias"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
    ],
)
def test_what_is_not_done_is_refused(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**({"model": "tiny", "messages": user("hi")} | fields))
    assert caught.value.type == "invalid_request_error"
    if param is not None:
        assert caught.value.param == param


def test_neutral_values_are_accepted(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="tiny",
        messages=user("hi"),
        max_tokens=2,
        frequency_penalty=0,
        presence_penalty=0,
        logit_bias={},
        n=1,
        response_format={"type": "text"},
        user="me",
    )


def test_errors_outside_the_client(url: str) -> None:
    for answer, status in (
        (
            httpx.post(
                f"{url}/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}
            ),
            400,
        ),
        (httpx.post(f"{url}/v1/chat/completions", json=[1]), 400),
        (httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny"}), 400),
        (httpx.get(f"{url}/v1/nothing"), 404),
        (httpx.get(f"{url}/v1/chat/completions"), 405),
        (httpx.get(f"{url}/v1/models", headers={"host": "evil.example"}), 403),
    ):
        assert answer.status_code == status
        kind = "permission_error" if status == 403 else "invalid_request_error"
        assert answer.json()["error"]["type"] == kind
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}


def test_eight_clients_at_once(client: openai.OpenAI) -> None:
    asks = [("tiny" if i % 2 else "tuned", "hello " * (1 + i % 4)) for i in range(8)]

    def ask(pair: tuple[str, str]) -> str | None:
        model, text = pair
        answer = client.chat.completions.create(model=model, messages=user(text), temperature=0)
        return answer.choices[0].message.content

    alone = [ask(pair) for pair in asks]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, asks)) == alone


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_computation(
    url: str, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    cancelled, cancel, step = threading.Event(), PagedScheduler.cancel, PagedScheduler.step

    def slow(scheduler: PagedScheduler) -> Any:
        time.sleep(0.02)  # a tiny model would be done before anybody can leave
        return step(scheduler)

    def seen(scheduler: PagedScheduler, sequence: Any) -> None:
        cancel(scheduler, sequence)
        cancelled.set()

    monkeypatch.setattr(PagedScheduler, "cancel", seen)
    monkeypatch.setattr(PagedScheduler, "step", slow)
    body = {
        "model": "tiny",
        "messages": user("hello"),
        "max_tokens": 200,
        "temperature": 0,
        "stop": ["never"],
        "stream": stream,
    }
    if stream:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.05))
    assert cancelled.wait(10)


def test_answers_keep_to_a_schema_whole_and_streamed(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "زرد"]}, "ripe": {"type": "boolean"}},
        "required": ["colour", "ripe"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "fruit", "schema": schema, "strict": True}}
    asked: Any = {"messages": user("the plum"), "response_format": form, "max_tokens": 60}
    for model in ("tiny", "tuned"):
        for seed in range(4):
            whole = client.chat.completions.create(model=model, seed=seed, **asked)
            said = whole.choices[0].message.content
            assert said is not None
            jsonschema.validate(json.loads(said), schema)
            stream = client.chat.completions.create(model=model, seed=seed, stream=True, **asked)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == said
