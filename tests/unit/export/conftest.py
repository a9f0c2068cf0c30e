"""A tiny base on disk and an adapter trained on it (random B, so that it matters)."""

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.lora import attach
from tanzim.adapters.method import trainable
from tanzim.adapters.store import save_adapter
from tanzim.models.hashing import weights_hash
from tanzim.models.load import load_model
from tanzim.models.resolve import Base

PROMPTS = [[1, 5, 9, 40, 7], [1, 77, 78], [1, *range(30, 130)]]
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"


@pytest.fixture
def tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tiny_tokenizer.chat_template = TEMPLATE
    return tiny_tokenizer


@pytest.fixture
def make_base(
    tmp_path: Path, tiny_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Base]:
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "cache"))

    def make(*, tied: bool = True, dtype: torch.dtype = torch.float32) -> Base:
        tiny_model.config.tie_word_embeddings = tied
        if tied:
            tiny_model.lm_head.weight = tiny_model.model.embed_tokens.weight
        else:
            tiny_model.lm_head.weight = torch.nn.Parameter(-tiny_model.model.embed_tokens.weight.detach())
        folder = tmp_path / f"base-{tied}-{dtype}"
        tiny_model.to(dtype).save_pretrained(str(folder))
        return Base("tiny/base", "local", folder, weights_hash(folder), "apache-2.0")

    return make


@pytest.fixture
def base(make_base: Callable[..., Base]) -> Base:
    return make_base()


@pytest.fixture
def trained() -> Callable[..., peft.PeftModel]:
    """Return the model as the training leaves it, ours, with a random adapter."""

    def train(base: Base, scale: float = 0.1) -> peft.PeftModel:
        model = load_model(base, dtype=torch.float32, device=torch.device("cpu"))
        adapted = attach(model, LoraConfig(rank=4), seed=1)
        generator = torch.Generator().manual_seed(7)
        for parameter in trainable(adapted).values():
            parameter.data.normal_(0, scale, generator=generator)
        return adapted.eval()

    return train


@pytest.fixture
def adapter(tmp_path: Path, base: Base, trained: Callable[..., peft.PeftModel]) -> Path:
    save_adapter(trained(base), tmp_path / "adapter", base_hash=base.hash, base_name=base.name)
    return tmp_path / "adapter"
