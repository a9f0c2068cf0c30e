"""Every optimiser against a loop written from its paper's formula, and through the engine with a resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_train import documents, fit, lines, tiny_llama

from tanzim.core.errors import TrainError
from tanzim.train.config import TrainConfig
from tanzim.train.optimizers import OPTIMIZERS, make_optimizer

RATE, DECAY = 0.05, 0.1
STEPS = 3


def gradients(shape: tuple[int, ...], steps: int = STEPS) -> Iterator[torch.Tensor]:
    for step in range(steps):
        yield torch.from_numpy(np.random.default_rng(step).normal(size=shape))


def plain(w: Any, g: Any, s: dict[str, Any], t: int, c: Any) -> Any:
    return w - RATE * g


def momentum(w: Any, g: Any, s: dict[str, Any], t: int, c: Any) -> Any:
    s["m"] = c.momentum * s.get("m", 0) + g
    return w - RATE * (g + c.momentum * s["m"] if c.nesterov else s["m"])


def adagrad(w: Any, g: Any, s: dict[str, Any], t: int, c: Any) -> Any:
    s["s"] = s.get("s", 0) + g**2
    return w - RATE * g / (s["s"] ** 0.5 + c.epsilon)


def rmsprop(w: Any, g: Any, s: dict[str, Any], t: int, c: Any) -> Any:
    s["v"] = c.decay * s.get("v", 0) + (1 - c.decay) * g**2
    return w - RATE * g / (s["v"] ** 0.5 + c.epsilon)


def adadelta(w: Any, g: Any, s: dict[str, Any], t: int, c: Any) -> Any:
    s["v"] = c.decay * s.get("v", 0) + (1 - c.decay) * g**2
    d = g * (s.get("u", 0) + c.epsilon) ** 0.5 / (s["v"] + c.epsilon) ** 0.5
    s["u"] = c.decay * s.get("u", 0) + (1 - c.decay) * d**2
    return w - RATE * d


def adam(w: Any, g: Any, s: dict[str, Any], t: int, c: Any) -> Any:
    s["m"] = c.beta1 * s.get("m", 0) + (1 - c.beta1) * g
    s["v"] = c.beta2 * s.get("v", 0) + (1 - c.beta2) * g**2
    m, v = s["m"] / (1 - c.beta1**t), s["v"] / (1 - c.beta2**t)
    return w - RATE * m / (v**0.5 + c.epsilon)


RULES = {
    "gd": ({}, plain),
    "sgd": ({}, plain),
    "mini_batch": ({}, plain),
    "momentum": ({"momentum": 0.8}, momentum),
    "momentum, nesterov": ({"momentum": 0.8, "nesterov": True}, momentum),
    "adagrad": ({"epsilon": 1e-4}, adagrad),
    "rmsprop": ({"decay": 0.9, "epsilon": 1e-4}, rmsprop),
    "adadelta": ({"decay": 0.8, "epsilon": 1e-3}, adadelta),
    "adam": ({"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}, adam),
    "adamw": ({"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}, adam),
}


@pytest.mark.parametrize("name", RULES)
def test_three_steps_equal_the_formula(name: str) -> None:
    settings, rule = RULES[name]
    kind = name.partition(",")[0]
    config = TrainConfig.model_validate(
        {"learning_rate": RATE, "weight_decay": DECAY, "optimizer": {"type": kind, **settings}}
    )
    shapes = {"matrix": (3, 5), "vector": (4,)}
    start = {name: torch.linspace(-1, 2, int(np.prod(s))).double().reshape(s) for name, s in shapes.items()}
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    optimizer = make_optimizer(parameters, config)
    for name_, parameter in parameters.items():
        want, kept = start[name_], {}
        decay = DECAY if name_ == "matrix" else 0.0
        for t, gradient in enumerate(gradients(shapes[name_]), start=1):
            if kind == "adamw":  # decoupled
                want = rule(want, gradient, kept, t, config.optimizer) - RATE * decay * want
            else:
                want = rule(want, gradient + decay * want, kept, t, config.optimizer)
        for gradient in gradients(shapes[name_]):
            optimizer.zero_grad()
            parameter.grad = gradient
            optimizer.step()
        torch.testing.assert_close(parameter.detach(), want, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(want, start[name_])


def test_8bit_adam_stays_near_adam_and_keeps_bytes() -> None:
    runs = {}
    for kind in ("adamw", "adamw_8bit"):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(96, 64))
        start = weight.detach().clone()
        optimizer = make_optimizer(
            {"w": weight}, TrainConfig.model_validate({"optimizer": {"type": kind}, "learning_rate": 1e-2})
        )
        for gradient in gradients((96, 64), 10):
            weight.grad = gradient.float()
            optimizer.step()
        runs[kind] = weight.detach() - start
    assert optimizer.state[weight]["state1"].dtype == torch.uint8
    assert float((runs["adamw"] - runs["adamw_8bit"]).norm() / runs["adamw"].norm()) < 0.05


def test_paged_moments_are_refused_by_name_without_cuda(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"paged_adamw_8bit.*CUDA") as caught:
        fit(tmp_path, optimizer={"type": "paged_adamw_8bit"})
    assert caught.value.fix == "set it to adamw_8bit"


def test_8bit_moments_are_refused_for_float64() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
    with pytest.raises(TrainError, match="float64"):
        make_optimizer({"w": weight}, TrainConfig.model_validate({"optimizer": {"type": "adamw_8bit"}}))


@pytest.mark.parametrize("kind", sorted(set(OPTIMIZERS) - {"paged_adamw_8bit"}))
def test_each_goes_on_bit_for_bit_where_it_was_stopped(kind: str, tmp_path: Path) -> None:
    """All of them end a cut run with the weights of the whole one, and teach the model something."""

    def stop(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 4:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {
        "optimizer": {"type": kind},
        "method": {"type": "full"},
        "epochs": 8.0 if kind == "gd" else 1.0,
        "tokens_per_pass": 256,
        "learning_rate": {"adadelta": 1.0, "mezo": 1e-3, "rmsprop": 1e-3, "adagrad": 1e-2}.get(kind, 5e-3),
        "save_steps": 2,
        "max_steps": 8,
    }
    fit(tmp_path / "whole", model=tiny_llama(), **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", model=tiny_llama(), on_line=stop, **settings)
    fit(tmp_path / "cut", model=tiny_llama(), **settings)
    assert lines(tmp_path / "whole", "train") == lines(tmp_path / "cut", "train")
    weights = [load_file(tmp_path / run / "run/model/model.safetensors") for run in ("whole", "cut")]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    gradients_ = [lines(tmp_path / run, "gradients") for run in ("whole", "cut")]
    assert gradients_[0] == gradients_[1]


def test_the_three_descents_differ_by_the_documents_of_a_step(tmp_path: Path) -> None:
    rows = documents(30)
    for kind in ("gd", "sgd", "mini_batch"):
        fit(tmp_path / kind, train_documents=rows, optimizer={"type": kind}, learning_rate=1e-3, epochs=2)
    tokens = {
        kind: [line["tokens"] for line in lines(tmp_path / kind, "train")]
        for kind in ("gd", "sgd", "mini_batch")
    }
    total = sum(len(row.ids) for row in rows)
    assert tokens["gd"] == [total] * 2
    assert sorted(tokens["sgd"]) == sorted([len(row.ids) for row in rows] * 2)
    assert max(tokens["mini_batch"]) <= 256 < total
    assert sum(tokens["mini_batch"]) == 2 * total


def test_without_a_rate_each_takes_its_usual_one() -> None:
    def rate(**keys: Any) -> float:
        return TrainConfig.model_validate(keys).learning_rate

    assert rate() == 2e-4
    assert rate(optimizer={"beta2": 0.95}) == 2e-4
    assert rate(optimizer={"type": "adadelta"}) == 1.0
    assert rate(optimizer={"type": "mezo"}) == 1e-4
    assert rate(optimizer={"type": "mezo"}, method={"type": "full"}) == 1e-6
    assert rate(optimizer={"type": "sgd"}, learning_rate=0.5) == 0.5


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"learning_rate": 1e3}, "less than or equal to 1"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"max_steps": 0}, "greater than or equal to 1"),
        ({"epochs": 0}, "greater than 0"),
        ({"neftune_alpha": float("nan")}, "neftune_alpha"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"optimizer": {"type": "adamm"}}, "adamm"),
        ({"optimizer": {"type": "lomo"}, "tokens_per_pass": 512}, "a step is one pass"),
        ({"optimizer": {"type": "lomo"}, "method": {"type": "adalora"}}, "never has them together"),
        ({"optimizer": {"type": "mezo"}, "method": {"type": "lora_fa"}}, "never has them together"),
        ({"optimizer": {"type": "sgd", "momentum": 0.9}}, "momentum"),
        ({"neftune_alpha": 5.0, "method": {"type": "prompt"}}, "learnt vectors"),
    ],
)
def test_bad_values_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainConfig.model_validate(keys)
