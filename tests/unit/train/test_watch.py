"""Warnings and refusals: on synthetic lines, and on small runs that are made to fail in each way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_train import documents, fit, lines, store, tiny_llama, tiny_lora

from tanzim.core.errors import TrainError
from tanzim.core.records import Json, Provenance, Rendered
from tanzim.core.run import RunFolder
from tanzim.evaluate.curves import diagnose
from tanzim.train import step as steps
from tanzim.train.batches import Sampler, collate
from tanzim.train.gradients import layer_norms, noise, noise_in_words, square_norm
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.watch import Watch

SEEDS = range(6)


def train_line(step: int, loss: float, norm: float | None = 1.0) -> Json:
    return {"kind": "train", "step": step, "loss": loss, "learning_rate": 1e-3, "grad_norm": norm}


def seen(lines_: list[Json], base: float | None = None) -> list[tuple[int, str]]:
    watch = Watch(base)
    return [(line["step"], found.kind) for line in lines_ for found in watch.see(line)]


def course(seed: int, noise_: float = 0.08) -> np.ndarray:
    curve = 1 + 2 * np.exp(-np.arange(200) / 40)
    return curve * (1 + noise_ * np.random.default_rng(seed).normal(size=200))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise_", [0.02, 0.1])
def test_nothing_is_said_of_a_healthy_run(noise_: float, seed: int) -> None:
    norms = np.random.default_rng(seed).lognormal(0, 0.5, 200)
    made = [train_line(i + 1, loss, norms[i]) for i, loss in enumerate(course(seed, noise_))]
    made += [{"kind": "eval", "step": s, "loss": 1.1 + 1 / s} for s in (50, 100, 150, 200)]
    assert seen(made, base=3.0) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_spike_is_named_by_its_step_and_once(seed: int) -> None:
    losses = course(seed)
    losses[100:103] *= 3
    made = [train_line(i + 1, loss) for i, loss in enumerate(losses)]
    assert seen(made) == [(101, "loss spike")]


def test_gradients_that_jump_and_layers_that_differ() -> None:
    made = [train_line(i, 2.0, 50.0 if i == 40 else 1.0) for i in range(1, 60)]
    assert seen(made) == [(40, "exploding gradients")]
    even = {"layers.0": 0.2, "layers.1": 0.1, "layers.2": 0.05, "rest": 900.0}
    for changed, kind in (
        ({}, []),
        ({"layers.0": 500.0}, ["exploding gradients"]),
        ({"layers.2": 1e-6}, ["vanishing gradients"]),
    ):
        line = {"kind": "gradients", "step": 1, "layers": {**even, **changed}}
        assert [found.kind for found in Watch(None).see(line)] == kind
    found = Watch(None).see({"kind": "gradients", "step": 1, "layers": {**even, "layers.2": 0.0}})
    assert "layers.2" in found[0].message


def test_rising_exploding_and_over_fitting() -> None:
    rising = [train_line(i + 1, 2 + 0.02 * i) for i in range(60)]
    assert [kind for _, kind in seen(rising)] == ["learning rate too high"]
    exploding = [train_line(i + 1, loss) for i, loss in enumerate([2.5] * 8 + [30.0] * 8)]
    assert (13, "loss exploded") in seen(exploding)
    falling = [train_line(i + 1, 2 - 0.01 * i) for i in range(100)]
    evals = [{"kind": "eval", "step": 20 * n, "loss": loss} for n, loss in enumerate([2, 1.8, 1.9, 2.0], 1)]
    both = sorted([*falling, *evals], key=lambda line: (line["step"], line["kind"] == "eval"))
    assert seen(both) == [(80, "over-fitting")]


def test_a_watch_shown_its_earlier_lines_goes_on_as_before() -> None:
    losses = course(0)
    losses[100] *= 3
    losses[130] *= 3
    made = [train_line(i + 1, loss) for i, loss in enumerate(losses)]
    whole, again = Watch(None), Watch(None)
    first = [whole.see(line) for line in made]
    for line in made[:110]:
        again.see(line)
    assert [again.see(line) for line in made[110:]] == first[110:]


def test_noise_equals_its_closed_form_on_average() -> None:
    """Gradients of tokens drawn around a mean of known norm, with a known covariance."""
    draw = np.random.default_rng(0)
    mean, deviation = draw.normal(size=40) * 0.1, np.linspace(0.1, 1, 40)
    signal, trace = float(mean @ mean), float((deviation**2).sum())
    found = []
    for _ in range(4000):
        tokens = mean + deviation * draw.normal(size=(64, 40))
        small, large = tokens[:16].mean(0), tokens.mean(0)
        found.append(noise(float(small @ small), 16, float(large @ large), 64))
    assert np.mean([f.signal for f in found]) == pytest.approx(signal, rel=0.05)
    assert np.mean([f.trace for f in found]) == pytest.approx(trace, rel=0.05)


def test_a_run_logs_the_noise_of_its_own_gradients(tmp_path: Path) -> None:
    """The logged numbers against gradients of the first pass and of the step, computed anew."""
    fit(tmp_path, model=tiny_llama(torch.float64), method={"type": "full"}, max_steps=1, watch_steps=1)
    line = lines(tmp_path, "gradients")[0]
    model = tiny_llama(torch.float64).train()
    tokens = store(tmp_path / "again.arrow", documents(60))
    sampler = Sampler(tokens.lengths, seed=5, tokens_per_step=256, packing=True)
    step = [tokens[index] for index in sampler.steps(0)[0]]
    passes = sampler.passes(np.array([len(d.ids) for d in step]), 128)
    assert len(passes) > 1
    objective = LanguageModel(model)
    objective.choose(step)
    squares, weights = [], []
    for part in ([step[index] for index in passes[0]], step):
        weight = sum(d.weight for d in part)
        model.zero_grad()
        objective.loss_sum(collate(part), scale=1 / weight).backward()
        squares.append(square_norm(model.parameters()))
        weights.append(weight)
        by_hand = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
        assert squares[-1] == pytest.approx(by_hand, rel=1e-9)
    want = noise(squares[0], weights[0], squares[1], weights[1])
    assert line["gradient_signal"] == pytest.approx(want.signal, rel=1e-5)
    assert line["noise_trace"] == pytest.approx(want.trace, rel=1e-5)
    layers = layer_norms(dict(model.named_parameters()))
    assert list(line["layers"]) == ["rest", "layers.0", "layers.1"]
    assert line["layers"] == pytest.approx(layers, rel=1e-6)
    by_hand = sum(
        float(p.grad.square().sum()) for p in model.model.layers[1].parameters() if p.grad is not None
    )
    assert layers["layers.1"] == pytest.approx(by_hand**0.5, rel=1e-6)


def test_the_noise_is_said_in_words() -> None:
    def metrics(signal: float, trace: float) -> list[Json]:
        gradients = {"kind": "gradients", "gradient_signal": signal, "noise_trace": trace}
        train = {"kind": "train", "tokens": 200, "trained_tokens": 100}
        return [gradients] * 3 + [train] * 3

    assert "about 2,000 tokens" in noise_in_words(metrics(1.0, 1000.0), 2000)
    assert "suits it" in noise_in_words(metrics(1.0, 1000.0), 2000)
    assert "could be smaller" in noise_in_words(metrics(1.0, 1000.0), 9000)
    assert "could be larger" in noise_in_words(metrics(1.0, 1000.0), 100)
    assert "drowned" in noise_in_words(metrics(-1.0, 1000.0), 2000)
    assert noise_in_words(metrics(1.0, 1.0)[2:], 2000) == ""


QUICK: dict[str, Any] = {"schedule": "constant", "validation_documents": [], "save_steps": 1000}
FAILING: dict[str, Any] = {"epochs": 20, "schedule": "constant", "save_steps": 1000, "eval_steps": 20}


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_rate_far_too_high_leaves_no_weights_behind(
    optimizer: str, validated: bool, tmp_path: Path
) -> None:
    held_out = {} if validated else {"validation_documents": []}
    norm = 1e6 if optimizer == "sgd" else 1.0
    settings: dict[str, Any] = {**FAILING, **held_out, "learning_rate": 1.0, "max_grad_norm": norm}
    with pytest.raises(TrainError, match="training made the model worse") as caught:
        fit(
            tmp_path,
            model=tiny_llama(),
            method={"type": "full"},
            optimizer={"type": optimizer},
            **settings,
        )
    assert "lower train.learning_rate" in str(caught.value.fix)
    assert not (tmp_path / "run" / "model").exists()
    metrics = RunFolder(tmp_path / "run").read_metrics()
    assert diagnose(metrics).verdict == "learning rate too high"
    assert "loss exploded" in [line.get("warning") for line in metrics]
    with pytest.raises(TrainError, match="training made the model worse"):  # nor on the second try
        fit(
            tmp_path,
            model=tiny_llama(),
            method={"type": "full"},
            optimizer={"type": optimizer},
            **settings,
        )


def test_a_rate_too_high_for_an_adapter_stops_or_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError):
        fit(tmp_path, learning_rate=1.0, epochs=20, **QUICK)
    assert not (tmp_path / "run" / "adapter").exists()
    assert diagnose(RunFolder(tmp_path / "run").read_metrics()).verdict == "exploding gradients"


def test_a_good_checkpoint_outlives_an_explosion(tmp_path: Path) -> None:
    """The rate jumps a thousandfold in the middle, as if the schedule were wrong."""
    patch = pytest.MonkeyPatch()
    patch.setattr(steps, "learning_rate", lambda number, config, total: 5e-3 if number < 40 else 5.0)
    try:
        result = fit(tmp_path, model=tiny_llama(), method={"type": "full"}, **FAILING)
    finally:
        patch.undo()
    assert result.stopped == "the loss exploded"
    assert result.best_step <= 40 < result.step < result.total_steps
    assert result.best_loss is not None
    assert result.best_loss < 3.5
    assert result.output.is_dir()


def test_a_rate_too_low_is_named(tmp_path: Path) -> None:
    fit(tmp_path, model=tiny_llama(), method={"type": "full"}, learning_rate=1e-4, epochs=14, **QUICK)
    found = diagnose(RunFolder(tmp_path / "run").read_metrics())
    assert found.verdict == "learning rate too low"


def test_learning_by_heart_is_warned_of_and_named(tmp_path: Path) -> None:
    fit(
        tmp_path,
        model=tiny_llama(),
        method={"type": "full"},
        train_documents=documents(12),
        learning_rate=1e-2,
        tokens_per_step=128,
        **(FAILING | {"epochs": 30}),
    )
    metrics = RunFolder(tmp_path / "run").read_metrics()
    assert [line["warning"] for line in metrics if "warning" in line] == ["over-fitting"]
    assert diagnose(metrics).verdict in ("early over-fitting", "late over-fitting")


@pytest.mark.parametrize(("factor", "kind"), [(1e5, "exploding gradients"), (1e-5, "vanishing gradients")])
def test_a_layer_whose_gradients_are_off_is_named(factor: float, kind: str, tmp_path: Path) -> None:
    """One layer of four gets its gradients scaled on the way, as a broken layer would."""
    model = tiny_llama(num_hidden_layers=4)
    for parameter in model.model.layers[2].parameters():
        parameter.register_hook(lambda gradient: gradient * factor)
    fit(tmp_path, model=model, method={"type": "full"}, max_steps=3, learning_rate=1e-4)
    said = [line for line in lines(tmp_path, "event") if line.get("warning") == kind]
    assert said
    assert "layers.2" in said[0]["message"]


def test_a_document_unlike_all_others_is_a_spike(tmp_path: Path) -> None:
    """A run that has learnt its data meets a document of noise: the steps named are those that held it."""
    draw = np.random.default_rng(1)
    odd = Rendered(tuple(draw.integers(0, 97, 250).tolist()), (1.0,) * 250, (), Provenance("odd.jsonl", 1))
    fit(
        tmp_path,
        model=tiny_llama(),
        method={"type": "full"},
        train_documents=[*documents(60), odd],
        epochs=18,
        learning_rate=1e-2,
        **QUICK,
    )
    sampler = Sampler(
        store(tmp_path / "again.arrow", [*documents(60), odd]).lengths,
        seed=5,
        tokens_per_step=256,
        packing=True,
    )
    order = [step for epoch in range(18) for step in sampler.steps(epoch)]
    held = {number for number, step in enumerate(order, start=1) if 60 in step}
    said = {line["step"] for line in lines(tmp_path, "event") if line.get("warning") == "loss spike"}
    assert said
    assert said <= held


def test_the_watch_says_nothing_of_a_good_adapter(tmp_path: Path) -> None:
    fit(tmp_path, model=tiny_lora(), epochs=10, learning_rate=1e-2)
    assert [line for line in lines(tmp_path, "event") if "warning" in line] == []
