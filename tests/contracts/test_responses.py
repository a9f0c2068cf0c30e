"""``/v1/responses`` against the unmodified ``openai`` client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from helpers.serving import Lines
from tanzim.core.records import Message
from tanzim.infer.engine import Engine, Request


def test_an_answer_is_the_engines(client: openai.OpenAI, engine: Engine) -> None:
    first = client.responses.create(model="tuned", input="سلام", instructions="brief", temperature=0)
    ids = Lines(engine.tokenizer).prompt([Message("system", "brief"), Message("user", "سلام")])
    expected = engine.generate([Request(ids, "default", max_new_tokens=24)])[0]
    assert first.output_text == expected.text
    assert first.usage is not None
    assert first.usage.input_tokens == len(ids)
    assert first.usage.output_tokens == expected.kept
    assert first.usage.total_tokens == len(ids) + expected.kept
    assert (first.status, first.incomplete_details.reason) == ("incomplete", "max_output_tokens")  # type: ignore[union-attr]
    # What was answered can be sent back as it came.
    turns: Any = [
        {"role": "developer", "content": "brief"},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "he"}, {"type": "input_text", "text": "llo"}],
        },
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": "go on"},
    ]
    second = client.responses.create(model="tiny", input=turns, temperature=0, max_output_tokens=6)
    told = [("system", "brief"), ("user", "hello"), ("assistant", expected.text), ("user", "go on")]
    ids = Lines(engine.tokenizer).prompt([Message(role, text) for role, text in told])  # type: ignore[arg-type]
    assert second.output_text == engine.generate([Request(ids, max_new_tokens=6)])[0].text


def test_the_stream_has_the_events_of_the_api(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "input": "hello", "temperature": 0, "metadata": {"who": "test"}}
    whole = client.responses.create(**ask)
    events = list(client.responses.create(**ask, stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 4
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage
    assert last.response.metadata == {"who": "test"}


def test_a_complete_answer_by_the_clients_own_stream(client: openai.OpenAI, engine: Engine) -> None:
    ids = Lines(engine.tokenizer).prompt([Message("user", "hello")])
    first = engine.generate([Request(ids, max_new_tokens=1)])[0].ids[0]
    engine.stop_ids = (first,)  # the model ends at once
    with client.responses.stream(model="tiny", input="hello", temperature=0) as stream:
        final = stream.get_final_response()
    assert (final.status, final.output_text, final.incomplete_details) == ("completed", "", None)
    assert final.usage is not None
    assert final.usage.output_tokens == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": []}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0.type",
        ),
        ({"input": "x" * 400}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "json_object"}}}, None),
        ({"extra_body": {"top_k": 5}}, "top_k"),
    ],
)
def test_what_is_not_done_is_refused(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**({"model": "tiny", "input": "hi"} | fields))
    if param is not None:
        assert caught.value.param == param
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="ghost", input="hi")
