"""A base kept as integers from ``tanzim.yaml`` to the answers."""

from __future__ import annotations

import asyncio
import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from tanzim.adapters.attach import attach
from tanzim.adapters.config import LoraConfig, QloraConfig
from tanzim.core.errors import ModelError
from tanzim.core.progress import Reporter
from tanzim.core.records import Message
from tanzim.infer.request import Request
from tanzim.models.config import ModelConfig
from tanzim.models.integers import encode
from tanzim.models.resolve import resolve
from tanzim.pipeline.answering import open_backend
from tanzim.serve.config import ServeConfig


class Listener(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def make_adapter(base: Path, folder: Path) -> Path:
    """Save a LoRA adapter with random values."""
    model = AutoModelForCausalLM.from_pretrained(base)
    made = resolve(ModelConfig(name=str(base)))
    method = attach(model, LoraConfig(rank=4), seed=1, base_hash=made.hash, base_name=str(base))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in method.parameters.values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    method.save(folder)
    return folder


def by_hand(base: Path, kind: Any) -> Any:
    """Return the model as transformers loads it, with every matrix rounded."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    head, table = model.lm_head.weight, model.model.embed_tokens.weight
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.copy_(
                    encode(weight.clone(), "int8" if weight is head or weight is table else kind).decode()
                )
    return model


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_served_base_of_integers_answers_with_its_adapters(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "fruit")
    config = ServeConfig.model_validate(
        {"engine": {"quantization": kind}, "folder": str(tmp_path / "server")}
    )
    listener = Listener()
    opened = open_backend([str(adapter)], config, reporter=listener)
    assert any(f"{kind[3:]} bits ({kind})" in line for line in listener.said)
    ids = opened.renderer.prompt([Message("user", "Which colour has plum?")])
    plain = by_hand(tiny_model, kind)
    opened.backend.start()
    try:
        for name in (None, "fruit"):
            found = asyncio.run(answer(opened.backend, Request(ids, name, max_new_tokens=10)))
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                model = copy.deepcopy(plain)
                if name is not None:
                    model = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
                whole = model.generate(
                    input_ids=torch.tensor([ids]),
                    max_new_tokens=10,
                    do_sample=False,
                    eos_token_id=opened.renderer.stop_ids,
                )
            tokenizer = AutoTokenizer.from_pretrained(tiny_model)
            wanted = tokenizer.decode(whole[0, len(ids) :], skip_special_tokens=True)
            # A character whose bytes have not all come is not delivered.
            assert found.rstrip("\ufffd") == wanted.rstrip("\ufffd")
    finally:
        opened.backend.stop()


async def answer(backend: Any, request: Request) -> str:
    """Return the text of an answer."""
    return "".join([delta.text async for delta in backend.stream(request)])


def test_an_adapter_of_a_base_in_other_bits_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    adapter = make_adapter(tiny_model, tmp_path / "fruit")
    record = adapter / "tanzim.json"
    method = QloraConfig().model_dump_json()
    record.write_text(record.read_text().rstrip().removesuffix("}") + f', "method": {method}}}')
    config = ServeConfig.model_validate({"engine": {"quantization": "int8"}})
    with pytest.raises(ModelError, match=r"trained on the base in 4 bits \(nf4.*kept in 8 bits"):
        open_backend([str(adapter)], config, reporter=Reporter())


def test_an_encoder_decoder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "d_kv": 16}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    folder = tmp_path / "t5"
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = ServeConfig.model_validate({"engine": {"quantization": "int8"}})
    with pytest.raises(ModelError, match="encoder-decoder"):
        open_backend([str(folder)], config, reporter=Reporter())
