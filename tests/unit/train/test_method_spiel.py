"""SpIEL against its formula written out: sparse values by AdamW, and places that move."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_steps import SETTINGS, Adam, Values, farthest, gradients, mean_loss
from safetensors.torch import load_file
from tiny_train import documents, fit, lines, tiny_llama, tiny_method
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from tanzim.adapters.sparse import Growth, SparseLinear, replace, zero_moments
from tanzim.adapters.spiel import Spiel
from tanzim.core.errors import ModelError, TrainError
from tanzim.train.config import TrainConfig

METHOD: dict[str, Any] = {"type": "spiel", "density": 0.05, "regrow_steps": 3, "growth_steps": 2}


def saved(root: Path) -> Values:
    return load_file(root / "run" / "adapter" / "adapter_model.safetensors")


def base_weights(**changes: Any) -> Values:
    return {name: value.detach().clone() for name, value in tiny_llama(**changes).named_parameters()}


class Written:
    """SpIEL on dense matrices, by lists of places: no code shared with ours."""

    def __init__(self, places: dict[str, Tensor], model: torch.nn.Module, rows: list[Any]) -> None:
        self.places = {name: value.tolist() for name, value in places.items()}
        self.model, self.rows = model, rows
        self.base = {name: value.detach() for name, value in model.named_parameters()}
        self.optimizer = Adam({name: torch.zeros(len(p)).double() for name, p in self.places.items()})
        self.candidates: dict[str, list[int]] = {}
        self.sums: dict[str, Tensor] = {}

    def step(self, *, watch: bool, share: float | None) -> None:
        dense = {name: self.base[f"{name}.weight"].clone() for name in self.places}
        for name, places in self.places.items():
            for place, value in zip(places, self.optimizer.values[name].tolist(), strict=True):
                dense[name][place // dense[name].shape[1], place % dense[name].shape[1]] += value

        def loss(leaves: Values) -> Tensor:
            changed = {f"{name}.weight": value for name, value in leaves.items()}
            return mean_loss(self.model, self.base | changed, self.rows)

        found = {name: value.reshape(-1) for name, value in gradients(loss, dense).items()}
        self.optimizer.step({name: found[name][places] for name, places in self.places.items()})
        for name, places in self.places.items():
            if watch:
                if name not in self.candidates:
                    order = sorted(range(len(found[name])), key=lambda i: -abs(float(found[name][i])))
                    self.candidates[name] = order[: len(places)]
                    self.sums[name] = torch.zeros(len(places)).double()
                self.sums[name] = self.sums[name] + found[name][self.candidates[name]]
            if share is not None:
                self.move(name, share)
        if share is not None:
            self.candidates, self.sums = {}, {}

    def move(self, name: str, share: float) -> None:
        places, values = self.places[name], self.optimizer.values[name]
        count = int(share * len(places))
        dropped = sorted(range(len(places)), key=lambda slot: abs(float(values[slot])))[:count]
        staying = {places[slot] for slot in range(len(places)) if slot not in set(dropped)}
        ranked = sorted(
            (pair for pair in zip(self.candidates[name], self.sums[name].tolist(), strict=True)),
            key=lambda pair: -abs(pair[1]),
        )
        grown = [place for place, _ in ranked if place not in staying][:count]
        leaving = [slot for slot in dropped if places[slot] not in grown]
        coming = [place for place in grown if place not in {places[slot] for slot in dropped}]
        for slot, place in zip(leaving, coming, strict=False):
            places[slot] = place
            values[slot] = 0
            for moment in self.optimizer.moments[name][1:]:
                moment[slot] = 0


def test_steps_equal_the_formula_across_two_moves(tmp_path: Path) -> None:
    rows = documents(12)
    prepared = tiny_method(tiny_llama(torch.float64), **METHOD)
    assert isinstance(prepared, Spiel)
    places = {path: layer.places.clone() for path, layer in prepared.layers.items()}
    fit(tmp_path, prepared=prepared, train_documents=rows, method=METHOD, max_steps=5, **SETTINGS)
    written = Written(places, tiny_llama(torch.float64, attn_implementation="sdpa"), rows)
    for watch, share in ((True, None), (True, 1.0), (True, 0.2 * (1 - 3 / 5)), (False, None), (True, None)):
        written.step(watch=watch, share=share)
    ours = saved(tmp_path)
    for name, expected in written.places.items():
        order, other = ours[f"{name}.places"].argsort(), torch.tensor(expected).argsort()
        assert ours[f"{name}.places"][order].tolist() == sorted(expected), name
        torch.testing.assert_close(
            ours[f"{name}.delta"][order], written.optimizer.values[name][other], atol=1e-5, rtol=0
        )
        assert float(ours[f"{name}.delta"].abs().max()) > 1e-2
        assert set(expected) != set(places[name].tolist())


def test_the_base_stays_to_the_bit_and_few_places_differ(tmp_path: Path) -> None:
    prepared = tiny_method(**METHOD)
    fit(tmp_path, prepared=prepared, method=METHOD, max_steps=5, weight_decay=0.5)
    before = base_weights()
    for name, value in prepared.model.named_parameters():
        if "delta" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name
    for name, value in saved(tmp_path).items():
        if name.endswith("places"):
            size = before[name.replace("places", "weight")].numel()
            assert len(value.unique()) == len(value) == int(0.05 * size)


def layer_and_input(kind: str) -> tuple[SparseLinear, torch.nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=97, n_embd=16, n_layer=1, n_head=2, n_positions=64)
        base = GPT2LMHeadModel(config).transformer.h[0].mlp.c_fc
    else:
        base = torch.nn.Linear(16, 24)
    base.requires_grad_(False)
    places = torch.randperm(base.weight.numel())[:40]
    sparse = SparseLinear(base, places)
    sparse.delta.data.normal_()
    dense = torch.zeros(base.weight.numel())
    dense[places] = sparse.delta.detach()
    return sparse, base, dense.view(base.weight.shape), torch.randn(3, 7, 16)


@pytest.mark.parametrize("kind", ["linear", "gpt2"])
def test_outputs_and_gradients_equal_dense_products(kind: str) -> None:
    sparse, base, delta, x = layer_and_input(kind)
    weight = (base.weight + delta).requires_grad_(True)
    ours_x, their_x = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    ours = sparse(ours_x)
    theirs = functional.linear(their_x, weight.T if kind == "gpt2" else weight, base.bias)
    torch.testing.assert_close(ours, theirs)
    pull = torch.randn_like(ours)
    ours.backward(pull)
    theirs.backward(pull)
    torch.testing.assert_close(ours_x.grad, their_x.grad)
    assert weight.grad is not None
    torch.testing.assert_close(sparse.delta.grad, weight.grad.reshape(-1)[sparse.places.long()])


def test_half_precision_keeps_small_differences_apart() -> None:
    """W + Δ would round a difference of 2⁻¹² of W away; two products do not."""
    base = torch.nn.Linear(8, 8, bias=False).bfloat16().requires_grad_(False)
    base.weight.data.fill_(1.0)
    sparse = SparseLinear(base, torch.tensor([0])).requires_grad_(False)
    sparse.delta.fill_(2.0**-12)
    x = torch.zeros(1, 8, dtype=torch.bfloat16)
    x[0, 0], x[0, 1] = 1.0, -1.0
    assert sparse(x)[0].tolist() == [2.0**-12] + [0.0] * 7
    assert float((base.weight + sparse.delta.bfloat16())[0, 0]) == 1.0


def test_replace_prefers_what_the_gradient_asks_for() -> None:
    places = torch.tensor([3, 10, 20, 30, 41])
    delta = torch.tensor([0.5, -0.1, 0.2, -0.9, 0.0])
    growth = Growth(torch.tensor([20, 7, 41, 8, 3]), torch.tensor([9.0, -5.0, 4.0, 1.0, 100.0]))
    changed = replace(places, delta, growth, 0.6)
    # Dropped: 41, 10, 20 (smallest). Asked for, without those that stay (3): 20, 7, 41.
    assert changed.tolist() == [1]
    assert places.tolist() == [3, 7, 20, 30, 41]
    assert delta.tolist() == pytest.approx([0.5, 0.0, 0.2, -0.9, 0.0])


def test_sums_are_over_whole_steps_and_a_failed_pass_is_not_counted_twice() -> None:
    sparse, _, _, x = layer_and_input("linear")
    sparse.growth = Growth(torch.arange(5), torch.zeros(5))
    sparse(x).sum().backward()
    sparse.delta.grad = None  # memory ran out, and the step begins again
    expected = torch.zeros(5)
    for part in x.split(1):
        sparse(part).sum().backward()
        expected += part.reshape(-1, 16).sum(0)[:5]
    sparse.growth.count()
    torch.testing.assert_close(sparse.growth.sums_N, expected)


@pytest.mark.parametrize("eight_bits", [False, True])
def test_moments_of_moved_places_are_zero(eight_bits: bool) -> None:
    """A zeroed moment and no gradient: Adam leaves the value where it is; the others go on."""
    value = torch.nn.Parameter(torch.zeros(5000))
    if eight_bits:
        import bitsandbytes

        optimizer: Any = bitsandbytes.optim.AdamW8bit([value], lr=1e-2, weight_decay=0.0)
    else:
        optimizer = torch.optim.AdamW([value], lr=1e-2, weight_decay=0.0, fused=True)
    value.grad = torch.ones(5000)
    optimizer.step()
    before = value.detach().clone()
    zero_moments(optimizer.state[value], value.shape, torch.tensor([3, 4999]))
    value.grad = torch.zeros(5000)
    optimizer.step()
    moved = value.detach() != before
    assert not moved[3]
    assert not moved[4999]
    assert int(moved.sum()) == 4998


@pytest.mark.parametrize("cut", [1, 5, 6])
def test_resume_is_bit_equal_around_a_move(tmp_path: Path, cut: int) -> None:
    settings: dict[str, Any] = {"method": METHOD, "max_steps": 8, "epochs": 9.0}
    fit(tmp_path / "plain", **settings)

    def interrupt(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == cut:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainError, match=f"interrupted after step {cut}"):
        fit(tmp_path / "cut", on_line=interrupt, **settings)
    fit(tmp_path / "cut", **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "plain", "train")
    assert farthest(saved(tmp_path / "cut"), saved(tmp_path / "plain")) == 0


def test_it_learns_and_moving_helps(tmp_path: Path) -> None:
    """At the same density, places chosen by gradient learn more than those drawn by chance."""
    losses = {}
    for name, growth in (("moving", 2), ("still", 40)):
        method = METHOD | {"growth_steps": growth, "regrow_steps": max(growth, 5)}
        settings = {**SETTINGS, "max_steps": 25}
        base = tiny_llama(initializer_range=0.3)
        fit(tmp_path / name, model=base, method=method, train_documents=documents(20), **settings)
        losses[name] = [line["loss"] for line in lines(tmp_path / name, "train")]
    assert losses["moving"][-1] < losses["moving"][0] - 1
    assert losses["moving"][-1] < losses["still"][-1] - 0.3
    said = [line["message"] for line in lines(tmp_path / "moving", "event")]
    assert len([message for message in said if "places moved" in message]) == 5


def test_a_density_without_places_is_refused() -> None:
    with pytest.raises(ModelError, match="no place: it has"):
        tiny_method(type="spiel", density=1e-6)
    with pytest.raises(ValueError, match="is more than regrow_steps"):
        tiny_method(type="spiel", regrow_steps=2, growth_steps=3)
    with pytest.raises(ValueError, match="moves values to other places"):
        TrainConfig.model_validate({"method": {"type": "spiel"}, "ema_decay": 0.9})
