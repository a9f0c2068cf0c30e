"""``/v1/embeddings`` with the unmodified ``openai`` client, against transformers and peft by hand."""

from __future__ import annotations

import base64
import copy
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import peft
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import save_changed
from helpers.serving import Lines, serving
from tanzim.infer import embed as computing
from tanzim.infer.engine import Engine

TEXTS = ["hello the quick brown fox", "سلام، می\u200cروم", "a", "hello " * 20]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "rank": 4, "alpha": 8},
    "dora": {"type": "dora", "rank": 4, "alpha": 8},
    "prefix": {"type": "prefix", "tokens": 5},
    "prompt": {"type": "prompt", "tokens": 5},
}


@pytest.fixture
def folder(tiny_model: LlamaForCausalLM, tmp_path: Path) -> Path:
    for number, (name, settings) in enumerate(KINDS.items()):
        save_changed(tiny_model, tmp_path / "adapters" / name, number, **settings)
    return tmp_path


@pytest.fixture
def url(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, folder: Path) -> Iterator[str]:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    for name in KINDS:
        engine.add_adapter(name, folder / "adapters" / name)
    names: dict[str, str | None] = {"tiny": None, **{name: name for name in KINDS}}
    with serving(engine, Lines(tiny_tokenizer), names, folder / "server") as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@torch.no_grad()
def by_hand(base: LlamaForCausalLM, folder: Path | None, ids: list[int]) -> list[float]:
    """Return what anyone gets for one text alone, with transformers and plain peft."""
    model: Any = copy.deepcopy(base)
    if folder is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    mean = output.hidden_states[-1][0, -len(ids) :].mean(0)
    vector: list[float] = (mean / mean.norm()).tolist()
    return vector


def test_vectors_are_those_of_transformers_and_peft(
    client: openai.OpenAI,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(computing, "MOST", 60)  # several batches, some of several texts
    rows = [tiny_tokenizer(text)["input_ids"] for text in TEXTS]
    assert len(list(computing.in_batches(rows))) > 1
    found = {}
    for name in ("tiny", *KINDS):
        answer = client.embeddings.create(model=name, input=TEXTS)
        adapter = None if name == "tiny" else folder / "adapters" / name
        expected = [by_hand(tiny_model, adapter, row) for row in rows]
        vectors = found[name] = [entry.embedding for entry in answer.data]
        torch.testing.assert_close(torch.tensor(vectors), torch.tensor(expected), atol=2e-5, rtol=0)
        assert [entry.index for entry in answer.data] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, rows))
        # As tokens, and one text alone, they are the same.
        again = client.embeddings.create(model=name, input=rows)
        assert [entry.embedding for entry in again.data] == vectors
        alone = client.embeddings.create(model=name, input=TEXTS[1]).data[0].embedding
        torch.testing.assert_close(torch.tensor(alone), torch.tensor(vectors[1]), atol=2e-5, rtol=0)
    for name in KINDS:
        assert found[name] != found["tiny"]
    assert client.embeddings.create(model="tiny", input=rows[0]).data[0].embedding == pytest.approx(
        found["tiny"][0], abs=2e-5
    )


def test_both_encodings_and_what_is_counted(url: str) -> None:
    asked = {"model": "tiny", "input": ["hello", "سلام"]}
    plain = httpx.post(f"{url}/v1/embeddings", json=asked).json()
    packed = httpx.post(f"{url}/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    for one, other in zip(plain["data"], packed["data"], strict=True):
        raw = base64.b64decode(other["embedding"])
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(one["embedding"], abs=1e-7)
    text = httpx.get(f"{url}/metrics").text
    counted = {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tanzim_tokens_total"
    }
    assert counted[("kind", "prompt"), ("model", "tiny")] == 2 * plain["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"input": []}, None),
        ({"input": ""}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [300]}, "input"),
        ({"input": "x" * 400}, "input"),
        ({"extra_body": {"pooling": "cls"}}, "pooling"),
    ],
)
def test_what_is_not_done_is_refused(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**({"model": "tiny", "input": "hi"} | fields))
    if param is not None:
        assert caught.value.param == param
