"""``/v1/completions`` against the unmodified ``openai`` client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine, Request

TEXTS = ["hello the", "سلام می‌روم"]


def test_text_and_tokens_are_continued_as_the_engine_does(client: openai.OpenAI, engine: Engine) -> None:
    encoded = [engine.tokenizer(text)["input_ids"] for text in TEXTS]
    expected = engine.generate([Request(ids, "default", max_new_tokens=16) for ids in encoded])
    prompts: list[Any] = [TEXTS, encoded, TEXTS[1], encoded[1]]
    for prompt, wanted in zip(prompts, [expected, expected, expected[1:], expected[1:]], strict=True):
        answer = client.completions.create(model="tuned", prompt=prompt, temperature=0)
        assert [c.text for c in answer.choices] == [one.text for one in wanted]
        assert [c.finish_reason for c in answer.choices] == [one.finish_reason for one in wanted]
        assert [c.index for c in answer.choices] == list(range(len(wanted)))
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == sum(one.prompt_tokens for one in wanted)
        assert answer.usage.completion_tokens == sum(one.kept for one in wanted)


def test_choices_seeds_and_stream(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "prompt": TEXTS, "temperature": 1.2, "n": 2, "logprobs": 2}
    first, again, other = (client.completions.create(**ask, seed=seed) for seed in (7, 7, 8))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices] != [choice.text for choice in other.choices]
    assert len(set(texts)) == 4
    said, told, ends = [""] * 4, [[] for _ in range(4)], [None] * 4
    usage = None
    for chunk in client.completions.create(
        **ask, seed=7, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            said[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ends[choice.index]
            if choice.logprobs:
                told[choice.index] += list(zip(*choice.logprobs.model_dump().values(), strict=True))
    assert said == texts
    assert ends == [choice.finish_reason for choice in first.choices]
    assert usage == first.usage
    for choice, streamed in zip(first.choices, told, strict=True):
        assert choice.logprobs is not None
        assert list(zip(*choice.logprobs.model_dump().values(), strict=True)) == streamed


def test_stop(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "prompt": "hello", "temperature": 0}
    free = client.completions.create(**ask).choices[0].text
    held = client.completions.create(**ask, stop=[free[3:5]]).choices[0]
    assert (held.text, held.finish_reason) == (free[: free.index(free[3:5])], "stop")


def test_logprobs_are_the_models(client: openai.OpenAI, engine: Engine) -> None:
    choice = client.completions.create(model="tiny", prompt="hello", temperature=0, logprobs=3).choices[0]
    ids = engine.tokenizer("hello")["input_ids"]
    made = engine.generate([Request(ids, max_new_tokens=16)])[0]
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.text_offset is not None
    assert told.top_logprobs is not None
    assert told.token_logprobs == pytest.approx(
        engine.logprobs(ids, list(made.ids[: made.kept]), None), abs=1e-4
    )
    for token, start in zip(told.tokens, told.text_offset, strict=True):
        if not token.startswith("bytes:"):
            assert choice.text[start:].startswith(token)
    assert [max(top, key=top.__getitem__) for top in told.top_logprobs] == told.tokens  # greedy
    assert {len(top) for top in told.top_logprobs} == {3}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, None),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, None),
        ({"prompt": [300]}, "prompt"),
        ({"prompt": [-1]}, None),
        ({"prompt": ["x"] * 100, "n": 100}, None),
        ({"prompt": "x" * 400}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"extra_body": {"top_k": 5}}, "top_k"),
    ],
)
def test_what_is_not_done_is_refused(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**({"model": "tiny", "prompt": "hi"} | fields))
    if param is not None:
        assert caught.value.param == param


def test_the_middleware_sees_text_and_tokens(engine: Engine, tmp_path: Path) -> None:
    link = {"type": "fake", "find": "world", "write": "hello", "refuse": "fox"}
    renderer = Lines(engine.tokenizer)
    expected = engine.generate([Request(engine.tokenizer("hello hello")["input_ids"], max_new_tokens=16)])[0]
    with (
        serving(engine, renderer, {"tiny": None}, tmp_path, middleware=[link]) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        for prompt in ("hello world", engine.tokenizer("hello world")["input_ids"]):
            answer = client.completions.create(model="tiny", prompt=prompt, temperature=0)
            assert answer.choices[0].text == expected.text
        for prompt in ("the fox", engine.tokenizer("the fox")["input_ids"]):
            with pytest.raises(openai.BadRequestError) as caught:
                client.completions.create(model="tiny", prompt=prompt)
            assert caught.value.code == "content_filter"
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="tiny", prompt="hello", logprobs=1)
        assert caught.value.param == "logprobs"
