"""The two step functions that keep no gradients: against plain descent, and against finite differences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_train import documents, fit, lines, store, tiny_llama, tiny_lora, tiny_method

from tanzim.adapters.fast import accelerate
from tanzim.adapters.method import Method
from tanzim.core.errors import TrainError
from tanzim.core.run import RunFolder
from tanzim.train import mezo
from tanzim.train.batches import Sampler, collate
from tanzim.train.checkpoint import State
from tanzim.train.config import TrainConfig
from tanzim.train.log import MetricsLog
from tanzim.train.lomo import Lomo
from tanzim.train.mezo import Mezo, direction, moved
from tanzim.train.objectives.base import evaluating
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.optimizers import make_optimizer
from tanzim.train.training import Training

WHOLE: dict[str, Any] = {"tokens_per_step": 256, "tokens_per_pass": 256, "max_steps": 5, "learning_rate": 0.3}


def run_of(root: Path, prepared: Method, **config: Any) -> tuple[Training, Any]:
    """Set a run up without its loop: for one step on the documents of its first."""
    settings = TrainConfig.model_validate({"tokens_per_step": 256, "tokens_per_pass": 128, **config})
    tokens = store(root / "train.arrow", documents(20))
    sampler = Sampler(tokens.lengths, seed=5, tokens_per_step=256, packing=True)
    objective = LanguageModel(prepared.model)
    objective.choose(tokens)
    training = Training(
        settings,
        objective,
        prepared,
        make_optimizer(prepared.parameters, settings),
        torch.amp.GradScaler("cpu", enabled=False),
        sampler,
        State(tokens_per_pass=settings.tokens_per_pass),
        MetricsLog(RunFolder(root / "run").metrics, 0, [], lambda line: None),
    )
    return training, [tokens[index] for index in sampler.steps(0)[0]]


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("norm", [0.5, 1e9])
def test_lomo_equals_plain_descent(kind: str, norm: float, tmp_path: Path) -> None:
    """Tied weights, weight decay on matrices and clipping included; dropout draws the same twice."""
    results = {}
    for optimizer in ("mini_batch", "lomo"):
        root = tmp_path / optimizer
        model = tiny_llama(torch.float64) if kind == "full" else tiny_lora(dropout=0.2, dtype=torch.float64)
        fit(
            root,
            model=model,
            method={"type": kind},
            optimizer={"type": optimizer},
            weight_decay=0.1,
            max_grad_norm=norm,
            validation_documents=[],
            **WHOLE,
        )
        results[optimizer] = lines(root, "train"), {n: p.detach() for n, p in model.named_parameters()}
    for ours, theirs in zip(results["lomo"][0], results["mini_batch"][0], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-10)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-6)
    assert results["lomo"][0][0]["loss"] - results["lomo"][0][-1]["loss"] > 1e-3
    for name, value in results["lomo"][1].items():
        torch.testing.assert_close(value, results["mini_batch"][1][name], rtol=1e-9, atol=1e-10)


def test_lomo_by_value_equals_descent_with_clipped_entries(tmp_path: Path) -> None:
    model = tiny_llama(torch.float64)
    settings = {"type": "lomo", "clip_value": 1e-3}
    fit(
        tmp_path / "lomo",
        model=model,
        method={"type": "full"},
        optimizer=settings,
        schedule="constant",
        **(WHOLE | {"max_steps": 1}),
    )
    reference = tiny_llama(torch.float64)
    training, _ = run_of(tmp_path / "plain", tiny_method(reference, type="full"))
    # The same documents make the first step of both: the seed and the order of rows are the same.
    tokens = store(tmp_path / "all.arrow", documents(60))
    sampler = Sampler(tokens.lengths, seed=5, tokens_per_step=256, packing=True)
    step = [tokens[index] for index in sampler.steps(0)[0]]
    loss = training.objective.loss_sum(collate(step), scale=1 / training.weight(step))
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    clipped = 0
    for (name, value), start, gradient in zip(
        model.named_parameters(), reference.parameters(), gradients, strict=True
    ):
        clipped += int((gradient.abs() > 1e-3).sum())
        want = start - 0.3 * gradient.clamp(-1e-3, 1e-3)
        torch.testing.assert_close(value, want, rtol=1e-9, atol=1e-10, msg=name)
    assert clipped > 100


def test_lomo_never_holds_two_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    held: list[int] = []
    original = torch.Tensor.add_

    def counting(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(self, torch.nn.Parameter):
            held.append(sum(p.grad is not None for p in model.parameters()))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "add_", counting)
    fit(
        tmp_path,
        model=model,
        method={"type": "full"},
        optimizer={"type": "lomo"},
        **(WHOLE | {"max_steps": 2}),
    )
    assert set(held) == {1}
    assert len(held) == 2 * len(list(model.parameters()))
    assert all(p.grad is None for p in model.parameters())


def test_lomo_refuses_float16_and_several_passes(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="float16"):
        fit(tmp_path / "a", optimizer={"type": "lomo"}, autocast=torch.float16, **WHOLE)
    training, step = run_of(tmp_path / "b", tiny_method(type="full"))
    training.config = TrainConfig.model_validate({"optimizer": {"type": "lomo"}})
    training.sampler.packing = False
    with pytest.raises(TrainError, match=r"is \d+ passes"):
        Lomo(training)(step, 0.1)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_mezo_estimates_the_slope_along_its_direction(
    kind: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ĝ against ∇L·z from back-propagation, and the step against θ − η·(ĝ·z + λ·θ), in float64."""
    method = tiny_method(tiny_llama(torch.float64), type=kind)
    if fast and kind == "lora":
        assert "fast path" in accelerate(method.model)[0]
    with torch.no_grad():
        for parameter in method.parameters.values():  # B starts at zero, which hides A's slope
            parameter.add_(torch.full_like(parameter, 0.01))
    training, step = run_of(
        tmp_path,
        method,
        optimizer={"type": "mezo", "epsilon": 1e-4},
        weight_decay=0.1,
        max_grad_norm=1e9,
        method={"type": kind},
    )
    before = {name: p.detach().clone() for name, p in method.parameters.items()}
    with evaluating(method.model):
        parts = [training.objective.loss_sum(collate(p)) for p in training.passes(step)]
        gradients = torch.autograd.grad(sum(parts) / training.weight(step), list(method.parameters.values()))
    update = Mezo(training)
    seeds: list[int] = []

    def seen(seed: int, name: str, parameter: torch.Tensor) -> torch.Tensor:
        seeds.append(seed)
        return direction(seed, name, parameter)

    monkeypatch.setattr(mezo, "direction", seen)
    loss, norm = update(step, 0.01)
    assert norm is not None
    assert len(set(seeds)) == 1
    z = {name: direction(seeds[0], name, value) for name, value in before.items()}
    slope = sum(float((g * z[name]).sum()) for g, name in zip(gradients, z, strict=True))
    assert norm == pytest.approx(abs(slope), rel=1e-4)
    assert loss == pytest.approx(float(sum(parts).detach()) / training.weight(step), rel=1e-5)
    for name, parameter in method.parameters.items():
        decay = 0.1 if parameter.ndim >= 2 else 0.0
        want = before[name] - 0.01 * (math.copysign(norm, slope) * z[name] + decay * before[name])
        torch.testing.assert_close(parameter.detach(), want, rtol=1e-9, atol=1e-12)


def test_weights_are_bit_equal_after_a_move_and_moved_within(tmp_path: Path) -> None:
    method = tiny_method(type="full")
    training, step = run_of(tmp_path, method, method={"type": "full"})
    before = {name: p.detach().clone() for name, p in method.parameters.items()}
    pointers = {name: p.data_ptr() for name, p in method.parameters.items()}

    def loss() -> float:
        with torch.no_grad(), evaluating(method.model):
            return float(training.objective.loss_sum(collate(step)))

    plain = loss()
    with moved(method.model, dict(method.parameters), 11, 0.5):
        inside = loss()
    assert loss() == plain
    for name, parameter in method.parameters.items():
        assert torch.equal(parameter, before[name])
        assert parameter.data_ptr() == pointers[name]
    with torch.no_grad():  # the same move by hand, in a model of its own
        for name, parameter in method.parameters.items():
            parameter.add_(direction(11, name, parameter), alpha=0.5)
    assert loss() == pytest.approx(inside, rel=1e-5)
    assert not math.isclose(inside, plain, rel_tol=1e-2)


def test_only_the_layer_that_runs_has_moved_copies() -> None:
    """What is held besides the weights is one layer's, and what stands outside of layers."""
    method = tiny_method(tiny_llama(num_hidden_layers=4), type="full")
    model: Any = method.model
    pointers = {name: p.data_ptr() for name, p in method.parameters.items()}
    seen: list[set[str]] = []

    def look(*_: object) -> None:
        seen.append({name for name, p in method.parameters.items() if p.data_ptr() != pointers[name]})

    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(look)
    model.model.norm.register_forward_pre_hook(look)
    with torch.no_grad(), moved(model, dict(method.parameters), 3, 0.1):
        model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    outside = {name for name in pointers if ".layers." not in name}
    assert outside == {"model.embed_tokens.weight", "model.norm.weight"}
    for number in range(4):
        own = {name for name in pointers if f".layers.{number}." in name}
        assert seen[number] == own | outside
    assert seen[4] == outside


def test_a_move_ends_when_the_forward_pass_fails(tmp_path: Path) -> None:
    method = tiny_method(type="full")
    before = {name: p.detach().clone() for name, p in method.parameters.items()}
    with pytest.raises(IndexError), moved(method.model, dict(method.parameters), 3, 1.0):
        method.model(input_ids=torch.tensor([[10**6]]))
    layer = method.model.model.layers[1]
    handle = layer.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), moved(method.model, dict(method.parameters), 3, 1.0):
        method.model(input_ids=torch.tensor([[1, 2]]))
    handle.remove()
    for name, parameter in method.parameters.items():
        assert torch.equal(parameter, before[name])


def test_mezo_learns_without_any_gradient(tmp_path: Path) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a backward pass")

    patch = pytest.MonkeyPatch()
    patch.setattr(torch.autograd, "backward", refuse)
    try:
        fit(
            tmp_path,
            model=tiny_llama(),
            method={"type": "full"},
            optimizer={"type": "mezo"},
            learning_rate=5e-3,
            schedule="constant",
            tokens_per_pass=256,
            epochs=40,
            validation_documents=[],
            max_grad_norm=10.0,
            save_steps=1000,
        )
    finally:
        patch.undo()
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.1
