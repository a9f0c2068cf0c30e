"""How far layers moved: closed forms, and every kind against the weights that peft merges."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from scipy import spatial
from tiny_train import tiny_llama, tiny_method

from tanzim.adapters.moved import moved, moved_layers


def test_a_turn_and_a_stretch_are_told_apart() -> None:
    before = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    angle = 0.1
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    assert moved(before, before @ turn) == pytest.approx((0, 1 - math.cos(angle)), abs=1e-7)
    assert moved(before, before * torch.tensor([[1.5], [1.0]])) == pytest.approx((0.25, 0), abs=1e-12)
    assert moved(before.T, (before @ turn).T, along=0) == pytest.approx((0, 1 - math.cos(angle)), abs=1e-7)
    assert moved(before, before) == (0, 0)


def test_an_output_without_weights_counts_for_nothing() -> None:
    before = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert moved(before, torch.tensor([[1.0, 0.0], [6.0, 0.0]])) == pytest.approx((1, 0), abs=1e-12)
    assert moved(before * 0, before) == (0, 0)


@pytest.mark.parametrize(
    "method",
    [
        {"type": "lora", "rank": 4},
        {"type": "dora", "rank": 4},
        {"type": "adalora", "rank": 2, "initial_rank": 4},
        {"type": "vera", "rank": 8},
        {"type": "ia3"},
    ],
    ids=lambda method: str(method["type"]),
)
def test_adapters_move_as_their_merged_weights(method: dict[str, Any]) -> None:
    base = dict(tiny_llama().named_parameters())
    model: Any = tiny_method(**method).model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.05)
    found = moved_layers(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = dict(copy.deepcopy(model).merge_and_unload().named_parameters())
    assert len(found["layers"]) == (6 if method["type"] == "ia3" else 14)
    points = []
    for layer in found["layers"]:
        start, end = (
            values[f"{layer['layer']}.weight"].detach().double().numpy() for values in (base, merged)
        )
        turns = [spatial.distance.cosine(a, b) for a, b in zip(start, end, strict=True)]
        lengths = [(float((w**2).sum(1)[i]) ** 0.5) for w in (start, end) for i in range(len(start))]
        half = len(start)
        stretch = [abs(b - a) / a for a, b in zip(lengths[:half], lengths[half:], strict=True)]
        points.append((sum(stretch) / half, sum(turns) / half))
        assert (layer["magnitude"], layer["direction"]) == pytest.approx(points[-1], rel=1e-3, abs=1e-9)
    if method["type"] == "ia3":
        return  # its directions hardly turn: the correlation is of noise
    want = float(torch.corrcoef(torch.tensor(points, dtype=torch.float64).T)[0, 1])
    assert found["correlation"] == pytest.approx(want, abs=1e-3)


def test_full_tuning_is_held_against_the_base() -> None:
    model, base = tiny_llama(), tiny_llama()
    weights = dict(base.named_parameters())
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    found = moved_layers(model, lambda name: weights[name].detach() if name in weights else None)
    by_name = {layer["layer"]: layer for layer in found["layers"]}
    assert len(by_name) == 14  # the output is the input's, tied
    assert by_name["model.layers.0.mlp.up_proj"]["magnitude"] == pytest.approx(0.5, rel=1e-6)
    others = [layer for name, layer in by_name.items() if name != "model.layers.0.mlp.up_proj"]
    assert all(layer["magnitude"] == layer["direction"] == 0 for layer in others)


def test_learnt_vectors_move_no_weight() -> None:
    assert moved_layers(tiny_method(type="prompt", tokens=3).model) == {"layers": [], "correlation": None}
