"""Half fine-tuning against an AdamW loop of its own, and what stays still to the bit."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_steps import SETTINGS, Adam, farthest, gradients, mean_loss
from safetensors.torch import load_file
from tiny_train import documents, fit, lines, tiny_llama, tiny_method
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from tanzim.adapters.hft import HalfRounds, categories, halves
from tanzim.core.errors import ModelError, TrainError
from tanzim.core.files import read_json

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def saved(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "run" / "model" / "model.safetensors")


def start(**changes: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in tiny_llama(**changes).named_parameters()}


def rounds(root: Path) -> list[set[str]]:
    return [set(names) for names in read_json(root / "run" / "model" / "tanzim.json")["method"]["frozen"]]


def test_steps_equal_adamw_on_the_thawed_half(tmp_path: Path) -> None:
    rows, method = documents(20), {"type": "hft", "round_steps": 2}
    fit(
        tmp_path,
        model=tiny_llama(torch.float64),
        train_documents=rows,
        method=method,
        max_steps=6,
        **SETTINGS,
    )
    model = tiny_llama(torch.float64, attn_implementation="sdpa")
    values = {name: value.detach() for name, value in model.named_parameters()}
    optimizer = Adam(values)
    frozen = rounds(tmp_path)
    assert len(frozen) == 3
    for step in range(6):
        still = frozen[step // 2]
        if step % 2 == 0:
            for name in still:
                optimizer.moments.pop(name, None)
        found = gradients(
            lambda leaves: mean_loss(model, leaves, rows), values, [n for n in values if n not in still]
        )
        optimizer.step(found)
    # Rotary angles and norms are float32 in a float64 model, too.
    assert farthest(saved(tmp_path), values) < 1e-5
    everything = tmp_path / "everything"
    fit(
        everything,
        model=tiny_llama(torch.float64),
        train_documents=rows,
        method={"type": "full"},
        max_steps=6,
        **SETTINGS,
    )
    assert farthest(saved(tmp_path), saved(everything)) > 1e-2


def test_the_frozen_half_does_not_move_by_a_bit(tmp_path: Path) -> None:
    fit(tmp_path, method={"type": "hft", "round_steps": 50}, max_steps=5, weight_decay=0.5)
    (frozen,), before, after = rounds(tmp_path), start(), saved(tmp_path)
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (name in frozen), name


def test_a_half_of_every_category_and_the_outside_always(tmp_path: Path) -> None:
    """Two of four attention matrices, three of six feed-forward ones in two layers, one of two norms."""
    fit(
        tmp_path,
        model=tiny_llama(num_hidden_layers=4),
        method={"type": "hft", "round_steps": 1},
        max_steps=12,
        epochs=9.0,
    )
    found = rounds(tmp_path)
    assert len(found) == 12
    for frozen in found:
        counts = []
        for layer in range(4):
            names = {name.split(".")[-2] for name in frozen if f"layers.{layer}." in name}
            assert len(names & set(ATTENTION)) == 2
            assert len([name for name in names if "norm" in name]) == 1
            counts.append(len(names & set(FEED_FORWARD)))
        assert sorted(counts) == [1, 1, 2, 2]
        assert not any("embed" in name or name == "model.norm.weight" for name in frozen)
    assert all(a != b for a, b in pairwise(found))
    covered = set().union(*found)
    assert all(f"model.layers.0.self_attn.{name}.weight" in covered for name in ATTENTION)


def test_halves_repeat_with_the_seed() -> None:
    model = tiny_llama()
    found = categories(model, dict(model.named_parameters()))
    drawn = [halves(found, seed) for seed in range(30)]
    assert drawn == [halves(found, seed) for seed in range(30)]
    assert len({tuple(half) for half in drawn}) > 25


def test_rounds_are_epochs_and_events_name_them(tmp_path: Path) -> None:
    result = fit(tmp_path, method={"type": "hft"}, epochs=3)
    said = [line for line in lines(tmp_path, "event") if "half fine-tuning, round" in line["message"]]
    epochs = [line["step"] for line in lines(tmp_path, "train") if line["epoch"] == int(line["epoch"])]
    assert result.step == epochs[-1]
    assert [line["step"] for line in said] == [1, epochs[0] + 1, epochs[1] + 1]
    frozen = rounds(tmp_path)[0]
    for layer in range(2):
        for name in ATTENTION:
            named = any(
                f"self_attn.{name} " in part and (str(layer) in part.split()[-1] or "0-1" in part)
                for part in said[0]["message"].split("; ")
                for part in [part.split(": ")[-1]]
            )
            assert named == (f"model.layers.{layer}.self_attn.{name}.weight" not in frozen)


def test_biases_go_with_their_matrix_in_gpt2() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    method = tiny_method(model, type="hft")
    assert isinstance(method, HalfRounds)
    frozen = method.half("round", 0)
    for name in frozen:
        assert name.replace("weight", "bias") in frozen
    kinds = [".".join(name.split(".")[-3:-1]) for name in frozen if name.endswith("weight")]
    assert len([kind for kind in kinds if kind.startswith("attn")]) == 2
    assert len([kind for kind in kinds if kind.startswith("mlp")]) == 2
    assert len([kind for kind in kinds if "ln_" in kind]) == 2


def test_experts_are_matrices_of_the_feed_forward_part() -> None:
    config = MixtralConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    model = MixtralForCausalLM(config)
    found = categories(model, dict(model.named_parameters()))
    inside = {name for layer in found for kind in layer for names in kind.values() for name in names}
    assert inside == {name for name, _ in model.named_parameters() if ".layers." in name}


@pytest.mark.parametrize("cut", [4, 6])
def test_resume_is_bit_equal_within_a_round_and_at_its_end(tmp_path: Path, cut: int) -> None:
    settings: dict[str, Any] = {
        "method": {"type": "hft", "round_steps": 4},
        "max_steps": 8,
        "epochs": 9.0,
        "weight_decay": 0.1,
    }
    fit(tmp_path / "plain", **settings)

    def interrupt(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == cut:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainError, match=f"interrupted after step {cut}"):
        fit(tmp_path / "cut", on_line=interrupt, **settings)
    fit(tmp_path / "cut", **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "plain", "train")
    assert farthest(saved(tmp_path / "cut"), saved(tmp_path / "plain")) == 0
    assert rounds(tmp_path / "cut") == rounds(tmp_path / "plain")
    told = [
        [line["step"] for line in lines(tmp_path / name, "event") if "round" in line["message"]]
        for name in ("plain", "cut")
    ]
    assert told[0] == told[1]


def test_reset_puts_a_half_back_to_the_bit_and_trains_all_before(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 6, "weight_decay": 0.1}
    fit(tmp_path, method={"type": "hft", "form": "reset"}, **settings)
    fit(tmp_path / "full", method={"type": "full"}, **settings)
    reset = set(read_json(tmp_path / "run" / "model" / "tanzim.json")["method"]["reset"])
    before, after, full = start(), saved(tmp_path), saved(tmp_path / "full")
    assert len({name for name in reset if "self_attn" in name}) == 4
    for name, value in after.items():
        assert torch.equal(value, before[name] if name in reset else full[name]), name
        assert not torch.equal(full[name], before[name])
    assert any("reset to the pre-trained values" in line["message"] for line in lines(tmp_path, "event"))


def test_both_forms_learn(tmp_path: Path) -> None:
    for form in ("rounds", "reset"):
        fit(tmp_path / form, method={"type": "hft", "form": form}, epochs=5.0)
        losses = [line["loss"] for line in lines(tmp_path / form, "eval")]
        assert losses[-1] < losses[0] - 1


def test_a_model_without_layers_is_refused() -> None:
    model = tiny_llama()
    model.config.num_hidden_layers = 5
    with pytest.raises(ModelError, match="layers could not be told apart"):
        tiny_method(model, type="hft")
