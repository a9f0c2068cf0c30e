"""DyLoRA against an AdamW loop over the first ranks, plain peft on the cut adapter, and the fast layers."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from plain_steps import SETTINGS, Adam, Values, farthest, gradients, mean_loss
from safetensors.torch import load_file
from tiny_train import documents, fit, lines, tiny_llama, tiny_method
from transformers import GPT2Config, GPT2LMHeadModel

from tanzim.adapters.dylora import DyLora, cut_adapter
from tanzim.adapters.fast import accelerate
from tanzim.adapters.store import save_adapter
from tanzim.core.errors import ModelError, TrainError
from tanzim.core.files import read_json
from tanzim.core.seeds import derive

IDS = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(0))
METHOD = {"type": "dylora", "rank": 6, "alpha": 12.0}


def saved(root: Path) -> Values:
    return load_file(root / "run" / "adapter" / "adapter_model.safetensors")


def drawn(step: int, low: int = 1, high: int = 6) -> int:
    return random.Random(derive(3, "dylora", step)).randint(low, high)


def short(name: str) -> str:
    """Name a tensor of the adapter file as its base weight."""
    return name.removeprefix("base_model.model.").rpartition(".lora_")[0] + ".weight"


def test_steps_equal_adamw_on_the_first_ranks(tmp_path: Path) -> None:
    rows = documents(16)
    base = tiny_llama(torch.float64)
    prepared = tiny_method(base, **METHOD)
    prepared.model.to(torch.float64)
    first = {
        name.replace(".default", ""): value.detach().clone() for name, value in prepared.parameters.items()
    }
    fit(tmp_path, prepared=prepared, train_documents=rows, method=METHOD, max_steps=4, **SETTINGS)

    model = tiny_llama(torch.float64, attn_implementation="sdpa")
    frozen = {name: value.detach() for name, value in model.named_parameters()}

    def effective(leaves: Values, rank: int) -> Values:
        changed = dict(frozen)
        for name, a_RI in leaves.items():
            if "lora_A" in name:
                b_OR = leaves[name.replace("lora_A", "lora_B")]
                changed[short(name)] = frozen[short(name)] + 12.0 / rank * b_OR[:, :rank] @ a_RI[:rank]
        return changed

    optimizer = Adam(dict(first))
    ranks = [drawn(step) for step in range(4)]
    assert len(set(ranks)) > 2
    for rank in ranks:
        optimizer.step(
            gradients(
                lambda leaves, rank=rank: mean_loss(model, effective(leaves, rank), rows), optimizer.values
            )
        )
    assert farthest(saved(tmp_path), optimizer.values) < 1e-5
    plain = tiny_method(tiny_llama(torch.float64), type="lora", rank=6, alpha=12.0)
    plain.model.to(torch.float64)
    fit(tmp_path / "lora", prepared=plain, train_documents=rows, max_steps=4, **SETTINGS)
    assert farthest(saved(tmp_path), saved(tmp_path / "lora")) > 1e-2


def trained(root: Path, **more: Any) -> DyLora:
    """Return a method whose adapter has values everywhere."""
    method = tiny_method(**(METHOD | more))
    generator = torch.Generator().manual_seed(4)
    for value in method.parameters.values():
        value.data.normal_(0, 0.2, generator=generator)
    method.save(root)
    assert isinstance(method, DyLora)
    return method


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_cut_adapter_is_plain_lora_of_that_rank(tmp_path: Path, rank: int) -> None:
    """Plain peft on the cut adapter does what our layers do at that rank."""
    method = trained(tmp_path / "whole")
    cut_adapter(tmp_path / "whole", tmp_path / "cut", rank)
    plain = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path / "cut").eval()
    assert plain.peft_config["default"].r == rank
    for layer in method.layers:
        layer.drawn = rank
    method.model.train()
    with torch.no_grad():
        torch.testing.assert_close(
            method.model(input_ids=IDS).logits, plain(input_ids=IDS).logits, atol=1e-5, rtol=1e-5
        )
    direct = trained(tmp_path / "direct", saved_rank=rank)
    kept, cut = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("direct", "cut"))
    assert farthest(kept, cut) == 0
    direct.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            direct.model(input_ids=IDS).logits, plain(input_ids=IDS).logits, atol=1e-5, rtol=1e-5
        )


def test_only_trained_ranks_can_be_cut(tmp_path: Path) -> None:
    trained(tmp_path / "whole", min_rank=2)
    for rank in (1, 7):
        with pytest.raises(ModelError, match="ranks 2 to 6"):
            cut_adapter(tmp_path / "whole", tmp_path / "cut", rank)
    lora = tiny_method(type="lora", rank=4)
    save_adapter(lora.model, tmp_path / "lora", base_hash="b" * 64, base_name="tiny")
    with pytest.raises(ModelError, match="only an adapter trained by DyLoRA"):
        cut_adapter(tmp_path / "lora", tmp_path / "cut", 2)
    assert not (tmp_path / "cut").exists()


def test_ranks_cover_the_range_evenly() -> None:
    counts = [0] * 7
    for step in range(3000):
        counts[drawn(step)] += 1
    assert counts[0] == 0
    assert max(abs(count - 500) for count in counts[1:]) < 100


def test_the_fast_layers_train_the_same(tmp_path: Path) -> None:
    fit(tmp_path / "plain", method=METHOD, max_steps=4, epochs=2.0)
    prepared = tiny_method(**METHOD)
    assert "layers train on the fast path" in accelerate(prepared.model)[0]
    fit(tmp_path / "fast", prepared=prepared, method=METHOD, max_steps=4, epochs=2.0)
    assert farthest(saved(tmp_path / "fast"), saved(tmp_path / "plain")) < 1e-4
    assert farthest(saved(tmp_path / "fast"), {k: v * 0 for k, v in saved(tmp_path / "plain").items()}) > 0.1


def test_gpt2_shapes_and_dropout_take_the_plain_form() -> None:
    """Conv1D keeps its matrix the other way round; peft's own layer at the drawn rank is the reference."""
    config = GPT2Config(vocab_size=97, n_embd=32, n_layer=1, n_head=4, n_positions=64, resid_pdrop=0.0)
    config.attn_pdrop = config.embd_pdrop = 0.0
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    method = tiny_method(model, **METHOD, dropout=0.5, target_modules=["c_attn"])
    assert isinstance(method, DyLora)
    layer = method.layers[0]
    for value in method.parameters.values():
        value.data.normal_(0, 0.2)
    layer.drawn = 2
    layer.train()
    x = torch.randn(3, 5, 32)
    torch.manual_seed(1)
    ours = layer(x)
    torch.manual_seed(1)
    dropped = torch.nn.functional.dropout(x, 0.5)
    a_RI, b_OR = (next(v for n, v in method.parameters.items() if part in n) for part in ("lora_A", "lora_B"))
    base = x @ layer.base_layer.weight + layer.base_layer.bias
    torch.testing.assert_close(ours, base + 12.0 / 2 * dropped @ (b_OR[:, :2] @ a_RI[:2]).T)


def test_resume_is_bit_equal(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": METHOD, "max_steps": 7, "epochs": 9.0}
    fit(tmp_path / "plain", **settings)

    def interrupt(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainError, match="interrupted after step 3"):
        fit(tmp_path / "cut", on_line=interrupt, **settings)
    fit(tmp_path / "cut", **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "plain", "train")
    assert farthest(saved(tmp_path / "cut"), saved(tmp_path / "plain")) == 0


def test_it_learns_at_every_rank(tmp_path: Path) -> None:
    """The training loss falls at the lowest rank, too."""
    rows = documents(20)
    base = {"initializer_range": 0.3}
    settings: dict[str, Any] = {**SETTINGS, "learning_rate": 3e-2, "max_steps": 30}
    fit(tmp_path, method=METHOD, model=tiny_llama(**base), train_documents=rows, **settings)
    untrained = float(mean_loss(tiny_llama(**base), {}, rows).detach())
    folder = tmp_path / "run" / "adapter"
    for rank in (1, 3, 6):
        cut_adapter(folder, tmp_path / "cut", rank)
        plain = peft.PeftModel.from_pretrained(tiny_llama(**base), tmp_path / "cut").eval()
        assert float(mean_loss(plain, {}, rows).detach()) < untrained - 0.8
    record = read_json(folder / "tanzim.json")["method"]
    assert (record["type"], record["min_rank"], record["rank"]) == ("dylora", 1, 6)
