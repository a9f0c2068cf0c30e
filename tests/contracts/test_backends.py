"""One suite for whatever stands behind the gateway: our engine, a fake vLLM, and vLLM where it is installed.

What is expected comes from transformers and plain peft.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import peft
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from helpers.adapters import generated, save_changed
from helpers.backends import BATCH, REAL, Tiny, make_backend, make_tiny
from helpers.processes import wait_until
from helpers.serving import Lines, running
from tanzim.core.errors import ConfigError, TanzimError
from tanzim.infer.request import Delta, Grammar, Request
from tanzim.pipeline.config import Config
from tanzim.pipeline.workshop import Workshop
from tanzim.serve.app import create_app
from tanzim.serve.backend import Backend
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import open_store
from tanzim.serve.vllm.backend import VllmBackend

LONG = 40  # tokens of an answer
NAMES = {"tiny": None, "first": "first", "second": "second"}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}
REAL_VLLM = pytest.param(
    "real",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(REAL is None, reason="TANZIM_VLLM_PYTHON names no environment with vLLM"),
    ],
)


@dataclass(frozen=True)
class Place:
    """A server, and what stands behind it."""

    url: str
    backend: Backend
    tiny: Tiny
    open_to: Path  # a folder that clients may name adapters in

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def prompt(self, text: str) -> list[int]:
        return self.tiny.tokenizer.encode(f"user:{text}\n>", add_special_tokens=False)

    def expected(self, text: str, model: str = "tiny", count: int = LONG) -> list[int]:
        """Return the tokens of the greedy answer to a message, up to the end of it."""
        ids = generated(self.tiny.model, self.tiny.adapters.get(model), self.prompt(text), count)
        return list(ids[: ids.index(2)] if 2 in ids else ids)

    def said(self, text: str, model: str = "tiny", count: int = LONG) -> str:
        return self.text(self.expected(text, model, count))

    def text(self, ids: Sequence[int]) -> str:
        """Return what tokens say, without half a character at their end."""
        return self.tiny.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")

    def ask(self, text: str, model: str = "tiny", **more: Any) -> Any:
        asked = {"temperature": 0, "max_tokens": LONG, **more}
        with self.client as client:
            return client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": text}], **asked
            )

    def collect(self, *requests: Request) -> list[list[Delta]]:
        """Ask the backend itself, all at once."""

        async def one(request: Request) -> list[Delta]:
            return [delta async for delta in self.backend.stream(request)]

        async def together() -> list[list[Delta]]:
            return await asyncio.gather(*map(one, requests))

        return asyncio.run(together())


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tiny_tokenizer, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["tanzim", pytest.param("fake", marks=pytest.mark.slow), REAL_VLLM])
def place(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("server")
    backend = make_backend(request.param, tiny, folder)
    config = ServeConfig(folder=str(folder), max_batch=BATCH, adapter_folders=[str(folder / "open")])
    app = create_app(
        backend, Lines(tiny.tokenizer), config, NAMES, open_store(config), Workshop(Config()), None
    )
    with running(app) as url:
        yield Place(url, backend, tiny, folder / "open")


def ids_of(deltas: Sequence[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.ids]


@pytest.mark.parametrize("model", NAMES)
def test_a_whole_answer(place: Place, model: str) -> None:
    answer = place.ask("hello world", model)
    assert answer.choices[0].message.content == place.said("hello world", model)
    ended = len(place.expected("hello world", model)) < LONG
    assert answer.choices[0].finish_reason == ("stop" if ended else "length")
    assert answer.usage.prompt_tokens == len(place.prompt("hello world"))
    assert answer.usage.completion_tokens == len(place.expected("hello world", model))


def test_a_streamed_answer(place: Place) -> None:
    with place.client as client:
        stream = client.chat.completions.create(
            model="first",
            messages=[{"role": "user", "content": "سلام دنیا"}],
            temperature=0,
            max_tokens=LONG,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == place.said("سلام دنیا", "first")
    assert sum(map(bool, texts)) > 5  # not all at once
    assert chunks[-1].usage.completion_tokens == len(place.expected("سلام دنیا", "first"))


def test_tokens_of_many_together(place: Place) -> None:
    """Base and adapters at once, more of them than fit a batch."""
    cases = [(text, model) for text in ("a", "the lazy dog", "می‌روم") for model in NAMES]
    requests = [Request(place.prompt(text), NAMES[model], max_new_tokens=LONG) for text, model in cases]
    answers = place.collect(*requests)
    assert [ids_of(deltas) for deltas in answers] == [place.expected(*case) for case in cases]


def test_a_stop_string(place: Place) -> None:
    whole = place.said("hello world")
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    answer = place.ask("hello world", stop=[stop])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_an_answer_ends_at_the_stop_token(place: Place) -> None:
    text = next(text for text in "abcdefghijklmnop" if len(place.expected(text)) < LONG)
    deltas = place.collect(Request(place.prompt(text), max_new_tokens=LONG))[0]
    assert ids_of(deltas) == place.expected(text)
    assert deltas[-1].finish_reason == "stop"


def test_seeds_and_choices(place: Place) -> None:
    def texts(seed: int) -> list[str]:
        answer = place.ask("hello", temperature=1.0, seed=seed, n=3)
        return [choice.message.content for choice in answer.choices]

    first = texts(7)
    assert len(set(first)) == 3
    assert texts(7) == first
    assert texts(8) != first


def test_no_share_of_the_probability_is_greedy(place: Place) -> None:
    answer = place.ask("hello world", temperature=1.0, top_p=0)
    assert answer.choices[0].message.content == place.said("hello world")


def test_logprobs(place: Place) -> None:
    answer = place.ask("hello world", "second", logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    ids = place.expected("hello world", "second")
    prompt = place.prompt("hello world")
    model = peft.PeftModel.from_pretrained(
        type(place.tiny.model).from_pretrained(place.tiny.folder), place.tiny.adapters["second"]
    )
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    true = torch.log_softmax(logits, -1)
    assert len(content) == len(ids)
    for place_, (told, token) in enumerate(zip(content, ids, strict=True)):
        assert told.logprob == pytest.approx(float(true[place_, token]), abs=1e-3)
        best = true[place_].topk(3).values.tolist()
        assert [one.logprob for one in told.top_logprobs] == pytest.approx(best, abs=1e-3)


def test_the_chosen_token_need_not_be_among_the_likeliest(place: Place) -> None:
    deltas = place.collect(
        Request(place.prompt("hello"), temperature=2.0, seed=1, logprobs=1, max_new_tokens=LONG)
    )
    told = [one for delta in deltas[0] for one in delta.logprobs]
    assert any(one.top[0][0] != one.id for one in told)
    assert all(len(one.top) == 1 and one.top[0][1] >= one.logprob for one in told)


def test_answers_that_keep_to_a_form(place: Place) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    answer = place.ask("hello", "first", response_format=form, max_tokens=60)
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
    request = Request(place.prompt("hello"), grammar=Grammar("regex", "(ab|cd){3}"), max_new_tokens=LONG)
    text = "".join(delta.text for delta in place.collect(request)[0])
    assert len(text) == 6
    assert {text[i : i + 2] for i in (0, 2, 4)} <= {"ab", "cd"}


def test_what_cannot_be_asked(place: Place) -> None:
    with pytest.raises(openai.NotFoundError):
        place.ask("hello", "nobody")
    with pytest.raises(openai.BadRequestError, match="context"):
        place.ask("hello " * 200)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such"}}}
    with pytest.raises(openai.BadRequestError, match="schema"):
        place.ask("hello", response_format=form)
    with pytest.raises(TanzimError, match="no adapter"):
        place.collect(Request([5, 6], adapter="nobody"))


def test_an_answer_ends_with_the_context(place: Place) -> None:
    prompt = (place.prompt("hello") * 60)[:246]
    deltas = place.collect(Request(prompt, max_new_tokens=100))[0]
    ids = generated(place.tiny.model, None, prompt, 10)
    assert 2 not in ids
    assert ids_of(deltas) == list(ids)
    assert deltas[-1].finish_reason == "length"


def test_adapters_come_and_go(place: Place) -> None:
    place.open_to.mkdir(exist_ok=True)
    save_changed(place.tiny.model, place.open_to / "third", 9, type="lora", rank=4, alpha=16)
    post = f"{place.url}/v1"
    body = {"lora_name": "third", "lora_path": str(place.open_to / "third")}
    assert httpx.post(f"{post}/load_lora_adapter", json=body, timeout=60).status_code == 200
    prompt = place.prompt("hello world")
    ids = list(generated(place.tiny.model, place.open_to / "third", prompt, LONG))
    ids = ids[: ids.index(2)] if 2 in ids else ids
    assert ids != place.expected("hello world")
    answer = place.ask("hello world", "third")
    assert answer.choices[0].message.content == place.text(ids)
    assert httpx.post(f"{post}/load_lora_adapter", json=body).status_code == 400  # it is there
    # Another one of the same name is another one, whatever was kept of prompts.
    assert httpx.post(f"{post}/unload_lora_adapter", json={"lora_name": "third"}).status_code == 200
    with pytest.raises(openai.NotFoundError):
        place.ask("hello world", "third")
    body["lora_path"] = str(place.open_to / "fourth")
    save_changed(place.tiny.model, place.open_to / "fourth", 10, type="lora", rank=4, alpha=16)
    assert httpx.post(f"{post}/load_lora_adapter", json=body, timeout=60).status_code == 200
    other = list(generated(place.tiny.model, place.open_to / "fourth", prompt, LONG))
    other = other[: other.index(2)] if 2 in other else other
    assert place.ask("hello world", "third").choices[0].message.content == place.text(other)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"type": "dora", "rank": 4, "alpha": 8}, "DoRA"),
        ({"type": "ia3"}, "IA3"),
        ({"type": "bitfit"}, "bitfit"),
        ({"type": "lora", "rank": 128, "alpha": 8}, "rank is 128"),
    ],
)
def test_adapters_that_vllm_does_not_serve(place: Place, method: dict[str, Any], said: str) -> None:
    place.open_to.mkdir(exist_ok=True)
    name = str(method["type"]) + str(method.get("rank", ""))
    save_changed(place.tiny.model, place.open_to / name, 9, **method)
    body = {"lora_name": name, "lora_path": str(place.open_to / name)}
    answer = httpx.post(f"{place.url}/v1/load_lora_adapter", json=body, timeout=60)
    if not isinstance(place.backend, VllmBackend):
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_what_vllm_alone_refuses(place: Place, tmp_path: Path) -> None:
    """Its own words are passed on, as a fault of the request."""
    if not isinstance(place.backend, VllmBackend):
        return
    with pytest.raises(ConfigError, match="out of vocabulary"):
        place.collect(Request([5, 9999]))
    with pytest.raises(ConfigError, match="logprobs of 21"):
        place.collect(Request([5, 6], logprobs=21))
    odd = save_changed(place.tiny.model, tmp_path / "odd", 3, type="lora", rank=4, alpha=8)
    config = json.loads((odd / "adapter_config.json").read_text())
    (odd / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa"}))
    with pytest.raises(ConfigError, match="init_lora_weights='pissa'"):
        asyncio.run(place.backend.add_adapter("odd", odd))
    assert "odd" not in place.backend.adapters
    assert place.backend.ready


def test_embeddings(place: Place) -> None:
    body = {"model": "tiny", "input": "hello"}
    answer = httpx.post(f"{place.url}/v1/embeddings", json=body, timeout=60)
    if isinstance(place.backend, VllmBackend):
        assert answer.status_code == 400
        assert "vLLM" in answer.json()["error"]["message"]
    else:
        assert len(answer.json()["data"][0]["embedding"]) == 64


def test_a_client_that_leaves_ends_the_computation(place: Place) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "max_tokens": 240,
        "temperature": 1.5,
    }
    with httpx.stream("POST", f"{place.url}/v1/chat/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    wait_until(lambda: place.backend.running == 0)
    if isinstance(place.backend, VllmBackend):
        wait_until(lambda: _running_in_vllm(place.backend) == 0)


def _running_in_vllm(backend: Any) -> float:
    lines = backend._watch.wire.ask("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))


def test_health_and_counts(place: Place) -> None:
    place.ask("hello", max_tokens=1)
    assert httpx.get(f"{place.url}/health").json() == {"status": "ok"}
    text = httpx.get(f"{place.url}/metrics").text
    assert 'tanzim_requests_running{of="answers"} 0.0' in text
