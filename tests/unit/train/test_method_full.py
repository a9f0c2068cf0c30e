"""Full fine-tuning of chosen layers: what moves equals AdamW, what is frozen stays to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain_steps import SETTINGS, Adam, farthest, gradients, mean_loss
from tiny_train import documents, fit, tiny_llama, tiny_method
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, T5Config, T5ForConditionalGeneration

from tanzim.adapters.full import decoder_layers
from tanzim.core.errors import ModelError

GPT2 = GPT2Config(vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=64)
T5 = T5Config(vocab_size=97, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2)


def untied(dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Module:
    return tiny_llama(dtype, tie_word_embeddings=False, **changes)


def plain(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    torch.manual_seed(7)
    config = GPT2Config(**(GPT2.to_diff_dict() | {"resid_pdrop": 0, "attn_pdrop": 0, "embd_pdrop": 0}))
    model: GPT2LMHeadModel = GPT2LMHeadModel(config).to(dtype)
    return model


@pytest.mark.parametrize(
    ("make", "config", "trained"),
    [
        (tiny_llama, {"last_layers": 1}, ("model.layers.1.", "model.norm.")),
        (untied, {"last_layers": 1}, ("model.layers.1.", "model.norm.", "lm_head.")),
        (untied, {"last_layers": 1, "freeze": ["lm_head", "mlp"]}, ("model.layers.1.", "model.norm.")),
        (plain, {"last_layers": 2}, ("transformer.h.1.", "transformer.h.2.", "transformer.ln_f.")),
        (tiny_llama, {"freeze": ["embed_tokens", "layers.0."]}, ("model.layers.1.", "model.norm.")),
    ],
)
def test_the_chosen_part_follows_adamw_and_the_rest_stays(
    make: Any, config: dict[str, Any], trained: tuple[str, ...], tmp_path: Path
) -> None:
    rows = documents(10)
    prepared = tiny_method(make(torch.float64), type="full", **config)
    fit(
        tmp_path,
        prepared=prepared,
        method={"type": "full", **config},
        train_documents=rows,
        max_steps=3,
        **SETTINGS,
    )
    still = config.get("freeze", ())
    model = make(torch.float64)
    model.set_attn_implementation("sdpa")
    before = {name: value.detach() for name, value in model.named_parameters()}
    chosen = [
        name for name in before if name.startswith(trained) and (".mlp." not in name or "mlp" not in still)
    ]
    values = dict(before)
    optimizer = Adam(values)
    for _ in range(3):
        optimizer.step(gradients(lambda leaves: mean_loss(model, leaves, rows), values, chosen))
    after = {name: value.detach() for name, value in prepared.model.named_parameters()}
    assert farthest(after, values) < 1e-5
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (name not in chosen), name


def trained_names(model: nn.Module, **config: Any) -> set[str]:
    return set(tiny_method(model, type="full", **config).parameters)


def test_a_model_without_a_head_and_one_with_an_encoder() -> None:
    names = trained_names(GPT2Model(GPT2), last_layers=1)
    assert {name.split(".")[0] for name in names} == {"h", "ln_f"}
    assert not any(name.startswith(("h.0", "h.1")) for name in names)
    model = T5ForConditionalGeneration(T5)
    assert [path.split(".")[0] for path in decoder_layers(model)] == ["encoder"] * 2 + ["decoder"] * 3
    names = trained_names(model, last_layers=1)
    assert all(name.startswith(("decoder.block.2.", "decoder.final_layer_norm", "lm_head")) for name in names)
    assert "decoder.final_layer_norm.weight" in names


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"last_layers": 3}, "has 2 layers, not 3"),
        ({"freeze": ["no_such_part"]}, "no parameter's name contains 'no_such_part'"),
        ({"freeze": ["model."]}, "every weight is frozen"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        tiny_method(type="full", **config)
