"""A model that has learnt to call a tool, through the unmodified ``openai`` client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import Lines, serving
from tanzim.core.records import Json, Message
from tanzim.infer.engine import Engine

TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SAID = 'Look:\n<tool_call>{"name": "look", "arguments": {"a": "سلام"}}</tool_call>'


def learn(model: LlamaForCausalLM, prompts: list[list[int]], answer: list[int]) -> None:
    """Make the model give ``answer`` to each of the prompts."""
    rows = [torch.tensor([[*prompt, *answer]]) for prompt in prompts]
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        losses = []
        for row in rows:
            labels = row.clone()
            labels[:, : -len(answer)] = -100
            losses.append(model(row, labels=labels).loss)
        loss = torch.stack(losses).mean()
        if loss < 0.01:
            return
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    raise AssertionError(f"the model did not learn: {loss}")


@pytest.fixture
def client(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Iterator[openai.OpenAI]:
    lines, tools = Lines(tiny_tokenizer), [dict(TOOL)]
    turns = [Message("user", "hi")]
    answer: list[int] = tiny_tokenizer.encode(SAID, add_special_tokens=False)
    learn(tiny_model, [lines.prompt(turns, tools), lines.prompt(turns)], [*answer, 2])
    engine = Engine(tiny_model.eval(), tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    with (
        serving(engine, lines, {"tiny": None}, tmp_path, max_new_tokens=120) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def test_calls_are_told_from_text_whole_and_streamed(client: openai.OpenAI) -> None:
    ask: Json = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    choice = client.chat.completions.create(**ask, tools=[TOOL]).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Look:", "tool_calls")
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"a": "سلام"})

    with client.chat.completions.stream(**ask, tools=[TOOL]) as stream:  # the client's own accumulation
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        final = stream.get_final_completion().choices[0]
    assert (final.message.content, final.finish_reason) == ("Look:", "tool_calls")
    assert final.message.tool_calls is not None
    assert [(c.function.name, c.function.arguments) for c in final.message.tool_calls] == [
        ("look", call.function.arguments)
    ]
    assert not any("tool_call>" in (c.delta.content or "") for chunk in chunks for c in chunk.choices)

    # The answer can be sent back with the tool's result, and without tools it is text.
    back: Any = [*ask["messages"], choice.message.model_dump(exclude_none=True)]
    result = {"role": "tool", "tool_call_id": call.id, "content": "42"}
    client.chat.completions.create(model="tiny", messages=[*back, result], tools=[TOOL], max_tokens=2)
    bare = client.chat.completions.create(**ask).choices[0]
    assert (bare.message.content, bare.message.tool_calls, bare.finish_reason) == (SAID, None, "stop")


def test_calls_in_responses(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **TOOL["function"]}
    ask: dict[str, Any] = {"model": "tiny", "input": "hi", "temperature": 0, "tools": [tool]}
    whole = client.responses.create(**ask)
    assert whole.status == "completed"
    assert [item.type for item in whole.output] == ["message", "function_call"]
    assert whole.output_text == "Look:"
    call = whole.output[1]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("look", {"a": "سلام"})

    with client.responses.stream(**ask) as stream:  # the client's own accumulation
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    ends = [event.type for event in events if event.type != "response.output_text.delta"]
    assert ends == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert final.output_text == "Look:"
    assert [item.type for item in final.output] == ["message", "function_call"]

    # It all can be sent back with what the function returned; the prompt is that of chat completions.
    turns: list[Any] = [{"role": "user", "content": "hi"}, *(item.to_dict() for item in whole.output)]
    turns.append({"type": "function_call_output", "call_id": call.call_id, "output": "42"})
    again = client.responses.create(**{**ask, "input": turns, "max_output_tokens": 4})
    said: list[Any] = [
        {"id": call.call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    ]
    messages: list[Any] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Look:", "tool_calls": said},
        {"role": "tool", "tool_call_id": call.call_id, "content": "42"},
    ]
    same = client.chat.completions.create(
        model="tiny", messages=messages, tools=[TOOL], temperature=0, max_tokens=4
    )
    assert again.output_text == same.choices[0].message.content
    assert again.usage is not None
    assert same.usage is not None
    assert again.usage.input_tokens == same.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{**ask, "tools": [{**tool, "strict": True}]})
    assert caught.value.param == "tools.0.strict"
