"""Greedy answers of the engine against ``transformers.generate``, row by row, token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from tanzim.infer.engine import Engine, Request
from tanzim.models.kernels.attention import ATTENTION, register

VOCABULARY = 300
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "eos_token_id": 2,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SHAPE),
    "mistral": ("MistralConfig", SHAPE | {"sliding_window": 16}),
    "qwen2": ("Qwen2Config", SHAPE | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", SHAPE | {"head_dim": 16}),
    "gemma2": ("Gemma2Config", SHAPE | {"head_dim": 16, "sliding_window": 12}),
    "gemma3": ("Gemma3TextConfig", SHAPE | {"head_dim": 16, "sliding_window": 12}),
    "phi3": ("Phi3Config", SHAPE),
    "olmo2": ("Olmo2Config", SHAPE),
    "gptneox": ("GPTNeoXConfig", SHAPE),
    "gpt2": ("GPT2Config", GPT2),
    "bloom": (
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4, "eos_token_id": 2},
    ),
    "mamba": (
        "MambaConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "eos_token_id": 2},
    ),
}


class Letters:
    """A tokenizer whose every token is one letter."""

    def decode(self, ids: list[int], **_: bool) -> str:
        return "".join(chr(0x4E00 + token) for token in ids)


def build(name: str, attention: str) -> PreTrainedModel:
    config_name, values = MODELS[name]
    config = getattr(transformers, config_name)(**values)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def prompts(lengths: list[int], shared: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    draw = lambda n: torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    beginning = draw(shared)
    return [beginning + draw(length) for length in lengths]


def reference(model: PreTrainedModel, prompt: list[int], new_tokens: int, eos: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=0,
    )
    return tuple(output[0, len(prompt) :].tolist())


BATCHES = {
    "alone": ([9], 0, 16),
    "equal": ([8, 8, 8], 0, 16),
    "mixed": ([3, 40, 11, 1, 25], 0, 16),
    "joining": ([3, 40, 11, 1, 25, 30, 7], 0, 3),
    "shared": ([3, 30, 11, 1, 5], 24, 16),
    "shared-joining": ([3, 30, 11, 1, 5, 9, 2], 24, 2),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gemma2", "gpt2"])
def test_greedy_in_every_batch(name: str, batch: str) -> None:
    register()
    compare(build(name, ATTENTION), *BATCHES[batch])


@pytest.mark.parametrize("name", MODELS)
def test_greedy_on_every_architecture(name: str) -> None:
    attention = {"gptneox": "sdpa", "bloom": "eager", "mamba": "eager"}.get(name, ATTENTION)
    register()
    compare(build(name, attention), [3, 20, 11, 1, 25], 20, 3)


def compare(model: PreTrainedModel, lengths: list[int], shared: int, max_batch: int) -> None:
    rows = prompts(lengths, shared)
    # Different lengths of answers, by limit and by stop token, so that rows leave at different times.
    limits = [5 + 4 * (index % 4) for index in range(len(rows))]
    stop = reference(model, rows[0], 12, eos=VOCABULARY)[4]
    expected = [reference(model, row, limit, stop) for row, limit in zip(rows, limits, strict=True)]
    engine = Engine(model, Letters(), stop_ids=[stop], base_hash="")
    requests = [Request(row, max_new_tokens=limit) for row, limit in zip(rows, limits, strict=True)]
    found = engine.generate(requests, max_batch=max_batch)
    assert [completion.ids for completion in found] == expected
    for completion in found:
        assert completion.finish_reason == ("stop" if completion.ids[-1] == stop else "length")
