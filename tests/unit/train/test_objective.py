from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_train import VOCABULARY, documents, store, tiny_llama, tiny_lora
from torch.nn import functional
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from tanzim.core.errors import TrainError
from tanzim.models.kernels.attention import ATTENTION, register
from tanzim.train.batches import collate
from tanzim.train.objectives import language_model
from tanzim.train.objectives.language_model import WAYS, LanguageModel, Way
from tanzim.train.tokens import Document

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": ATTENTION,
}


def some(tmp_path, count: int = 3) -> list[Document]:
    return list(store(tmp_path / "t.arrow", documents(count, weighted=True)))


def plain_loss(model: Any, documents_: list[Document]) -> torch.Tensor:
    """Each document alone, all logits, PyTorch's cross-entropy."""
    total = torch.zeros((), dtype=torch.float64)
    for document in documents_:
        ids = torch.tensor(document.ids.tolist())
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].double()
        losses = functional.cross_entropy(logits, ids[1:], reduction="none")
        total = total + (losses * torch.tensor(document.weights[1:].tolist(), dtype=torch.float64)).sum()
    return total


def families() -> dict[str, Any]:
    register()
    torch.manual_seed(0)
    return {
        "llama": tiny_llama,
        "gemma2": lambda: Gemma2ForCausalLM(
            Gemma2Config(**SMALL, final_logit_softcapping=0.3, attn_logit_softcapping=None)
        ),
        "granite": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0)),
        "cohere": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, attn_implementation=ATTENTION)
        ),
    }


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere", "gpt2"])
def test_loss_and_gradient_equal_the_models_own(family: str, tmp_path) -> None:
    model = families()[family]().double().eval()
    rows = some(tmp_path)
    objective = LanguageModel(model)
    objective.choose(rows)
    assert objective.way == Way(own_logits=False, packed=True)
    ours = objective.loss_sum(collate(rows), scale=0.1)
    ours.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    own = plain_loss(model, rows) * 0.1
    own.backward()
    torch.testing.assert_close(ours, own, rtol=1e-6, atol=1e-7)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_gives_the_same_loss(way: Way, tmp_path) -> None:
    model = tiny_lora(dtype=torch.float64).eval()
    rows = some(tmp_path)
    objective = LanguageModel(model)
    objective.way = way
    groups = [rows] if way.packed else [[row] for row in rows]
    ours = sum(objective.loss_sum(collate(group)) for group in groups)
    torch.testing.assert_close(ours, plain_loss(model, rows), rtol=1e-6, atol=1e-7)


def test_a_model_that_changes_its_logits_keeps_its_own(tmp_path) -> None:
    model = tiny_llama().eval()
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits * 2)
    rows = some(tmp_path)
    objective = LanguageModel(model)
    said = objective.choose(rows)
    assert objective.way == Way(own_logits=True, packed=True)
    assert "the model's own logits" in said
    torch.testing.assert_close(
        objective.loss_sum(collate(rows)).double(), plain_loss(model, rows), rtol=1e-5, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_leaks_between_documents_is_not_packed(tmp_path) -> None:
    model = MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    ).eval()
    objective = LanguageModel(model)
    said = objective.choose(some(tmp_path))
    assert objective.way == Way(own_logits=False, packed=False)
    assert "one document per pass" in said


def test_a_broken_base_is_refused_before_training(tmp_path) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainError, match="nan, before any training") as caught:
        LanguageModel(model).choose(some(tmp_path))
    assert "rows-0.jsonl, row 1" in str(caught.value)


def test_choosing_switches_dropout_off_and_back(tmp_path) -> None:
    model = tiny_lora(dropout=0.5).train()
    objective = LanguageModel(model)
    objective.choose(some(tmp_path))
    assert model.training
    assert objective.way == WAYS[0]


def test_filling_changes_neither_loss_nor_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(store(tmp_path / "t.arrow", documents(5)))
    found = []
    for multiple in (1, 64):
        monkeypatch.setattr(language_model, "MULTIPLE", multiple)
        model = tiny_lora(dtype=torch.float64)
        loss = LanguageModel(model).loss_sum(collate(rows))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
