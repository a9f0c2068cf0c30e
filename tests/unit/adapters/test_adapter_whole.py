"""Fully trained models as adapters of their base: they compute as the model did, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

from tanzim.adapters.own import standing
from tanzim.adapters.store import read_own
from tanzim.adapters.whole import save_whole
from tanzim.core.errors import ModelError

HASH = "e" * 64
IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))


def model(tied: bool, width: int = 16) -> Any:
    torch.manual_seed(1)
    config = tf.LlamaConfig(
        vocab_size=61,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    return tf.LlamaForCausalLM(config).eval()


@torch.no_grad()
def logits(of: Any) -> torch.Tensor:
    found: torch.Tensor = of(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_the_base_computes_as_the_trained_model_and_then_as_before(tied: bool, tmp_path: Path) -> None:
    base = model(tied)
    tuned = copy.deepcopy(base)
    trained = {"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"}
    with torch.no_grad():
        for name in trained:
            tuned.get_parameter(name).mul_(1.5)
    save_whole(tuned, base, tmp_path / "whole", base_hash=HASH, base_name="tiny")
    assert load_file(tmp_path / "whole/adapter_model.safetensors").keys() == trained

    before = logits(base)
    assert not torch.equal(before, logits(tuned))
    with standing(read_own(tmp_path / "whole", base_hash=HASH).changes(base)):
        assert torch.equal(logits(base), logits(tuned))
    assert torch.equal(logits(base), before)


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="other weights than its base"):
        save_whole(model(True, 32), model(True), tmp_path / "whole", base_hash=HASH, base_name="tiny")
    base = model(False)
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.lm_head.weight.zero_()
    save_whole(tuned, base, tmp_path / "whole", base_hash=HASH, base_name="tiny")
    with pytest.raises(ModelError, match="do not fit"):
        read_own(tmp_path / "whole", base_hash=HASH).changes(model(True))
