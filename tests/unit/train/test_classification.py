"""Heads for labels against transformers' own forward pass, loss and training."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tiny_heads import LABELS, PAD, headed, texts
from tiny_train import fit, lines, store, tiny_method
from torch.nn import CrossEntropyLoss

from tanzim.adapters.fast import accelerate
from tanzim.core.errors import ConfigError, TrainError
from tanzim.train.balanced import BalancedSampler
from tanzim.train.batches import collate
from tanzim.train.config import TrainConfig
from tanzim.train.objectives.choose import make_objective
from tanzim.train.objectives.classification import LabelObjective, predict
from tanzim.train.objectives.config import ObjectiveConfig
from tanzim.train.tokens import Document

KINDS = [("bert", False), ("bert", True), ("llama", False), ("llama", True)]


def objective_of(model: Any, tagged: bool, **config: Any) -> LabelObjective:
    settings = {"type": "token_classification" if tagged else "classification", **config}
    made = make_objective(model, TypeAdapter(ObjectiveConfig).validate_python(settings))
    assert isinstance(made, LabelObjective)
    return made


def rows(documents: list[Document], tagged: bool) -> dict[str, torch.Tensor]:
    """What transformers takes: padded rows, their mask, and labels (-100 where there is none)."""
    longest = max(len(document.ids) for document in documents)
    ids = torch.full((len(documents), longest), PAD)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, document in enumerate(documents):
        ids[row, : len(document.ids)] = torch.tensor(document.ids.tolist())
        mask[row, : len(document.ids)] = 1
        labels[row, np.flatnonzero(document.weights)] = torch.tensor(document.targets[0].tolist())
    return {"input_ids": ids, "attention_mask": mask, "labels": labels if tagged else labels[:, 0]}


@pytest.mark.parametrize(("family", "tagged"), KINDS)
def test_loss_is_transformers_own(tmp_path, family: str, tagged: bool) -> None:
    documents = list(store(tmp_path / "t.arrow", texts(12, tagged=tagged)))
    objective = objective_of(headed(family, tagged=tagged, dtype=torch.float64), tagged)
    said = objective.choose(documents)
    # An encoder's pooled texts are the one case that must be padded.
    assert objective.layout == ("padded" if (family, tagged) == ("bert", False) else "packed"), said
    theirs = headed(family, tagged=tagged, dtype=torch.float64, attention="eager")
    want = theirs(**rows(documents, tagged)).loss
    weight = sum(document.weight for document in documents)
    for layout in ("packed", "padded", "single"):
        if layout == "packed" and objective.layout == "padded":
            continue
        objective.layout = layout
        groups = [[d] for d in documents] if layout == "single" else [documents[:5], documents[5:]]
        got = sum(objective.loss_sum(collate(group), scale=1 / weight) for group in groups)
        # transformers takes the loss, and Llama its norms, in float32.
        torch.testing.assert_close(got, want.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("family", "tagged"), KINDS)
def test_three_steps_are_those_of_transformers_and_torch(tmp_path, family: str, tagged: bool) -> None:
    made = texts(14, tagged=tagged)
    ours = headed(family, tagged=tagged, dtype=torch.float64)
    fit(
        tmp_path,
        prepared=tiny_method(ours, type="full"),
        train_documents=made,
        validation_documents=[],
        method={"type": "full"},
        objective={"type": "token_classification" if tagged else "classification"},
        tokens_per_step=10**6,
        tokens_per_pass=100,
        max_steps=3,
        epochs=3,
        warmup_steps=0,
        schedule="constant",
        learning_rate=3e-3,
        max_grad_norm=1.0,
    )
    theirs = headed(family, tagged=tagged, dtype=torch.float64, attention="eager")
    start = {name: value.detach().clone() for name, value in theirs.named_parameters()}
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-3, weight_decay=0.0)
    batch = rows(list(store(tmp_path / "again.arrow", made)), tagged)
    losses = []
    for _ in range(3):
        loss = theirs(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [line["loss"] for line in lines(tmp_path, "train")] == pytest.approx(losses, rel=1e-6)
    for name, value in theirs.named_parameters():
        # A key's bias has no gradient but rounding.
        moved = float((value - start[name]).detach().norm())
        assert float((ours.get_parameter(name) - value).detach().norm()) <= 1e-3 * moved + 1e-12, name


@pytest.mark.parametrize(("family", "tagged"), KINDS)
def test_a_tiny_model_learns_with_lora_and_a_trained_head(tmp_path, family: str, tagged: bool) -> None:
    method = tiny_method(headed(family, tagged=tagged), type="lora", rank=8, alpha=32)
    fit(
        tmp_path,
        prepared=method,
        train_documents=texts(200, tagged=tagged),
        validation_documents=texts(40, seed=1, tagged=tagged),
        objective={"type": "token_classification" if tagged else "classification"},
        epochs=8,
        eval_steps=20,
        tokens_per_step=256,
        tokens_per_pass=256,
        learning_rate=1e-2,
    )
    held_out = list(store(tmp_path / "test.arrow", texts(60, seed=2, tagged=tagged)))
    objective = objective_of(method.model, tagged)
    objective.choose(held_out)
    said = np.concatenate([part.argmax(-1) for part in predict(objective, held_out, 256)])
    right = np.concatenate([document.targets[0] for document in held_out])
    assert (said == right).mean() > 0.8  # the most frequent label alone: about one half
    frozen = [n for n, p in method.model.named_parameters() if not p.requires_grad and "lora" not in n]
    assert frozen
    assert any("modules_to_save" in name for name in method.parameters)


@pytest.mark.parametrize(("family", "tagged"), [("bert", True), ("llama", False)])
def test_resume_is_bit_equal(tmp_path, family: str, tagged: bool) -> None:
    kind = "token_classification" if tagged else "classification"

    def run(root: Any, max_steps: int) -> dict[str, torch.Tensor]:
        method = tiny_method(headed(family, tagged=tagged), type="lora", rank=4, dropout=0.1)
        fit(
            root,
            prepared=method,
            train_documents=texts(40, tagged=tagged),
            validation_documents=texts(8, seed=1, tagged=tagged),
            objective={"type": kind, "class_weights": "balanced"},
            balanced_batches=not tagged,
            max_steps=max_steps,
            epochs=9,
            eval_steps=3,
            schedule="constant",
        )
        return {name: value.detach().clone() for name, value in method.parameters.items()}

    class Stop(Exception):
        pass

    whole = run(tmp_path / "whole", 9)
    method = tiny_method(headed(family, tagged=tagged), type="lora", rank=4, dropout=0.1)

    def stop(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        fit(
            tmp_path / "halves",
            prepared=method,
            train_documents=texts(40, tagged=tagged),
            validation_documents=texts(8, seed=1, tagged=tagged),
            objective={"type": kind, "class_weights": "balanced"},
            balanced_batches=not tagged,
            max_steps=9,
            epochs=9,
            eval_steps=3,
            schedule="constant",
            on_line=stop,
        )
    halves = run(tmp_path / "halves", 9)
    assert any("resumed" in line["message"] for line in lines(tmp_path / "halves", "event"))
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize("tagged", [False, True])
def test_the_fast_layers_serve_a_head_too(tmp_path, tagged: bool) -> None:
    documents = list(store(tmp_path / "t.arrow", texts(12, tagged=tagged)))
    both = []
    for fast in (False, True):
        method = tiny_method(headed("llama", tagged=tagged), type="lora", rank=4)
        for name, value in method.parameters.items():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.02, generator=torch.Generator().manual_seed(1))
        if fast:
            assert "2 layers train on the fast path" in accelerate(method.model)[0]
        objective = objective_of(method.model, tagged)
        objective.choose(documents)
        assert objective.layout == "packed"
        loss = objective.loss_sum(collate(documents))
        both.append([loss, *torch.autograd.grad(loss, list(method.parameters.values()))])
    for plain, quick in zip(*both, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)


def test_class_weights_over_the_whole_set_are_torchs(tmp_path) -> None:
    documents = list(store(tmp_path / "t.arrow", texts(50)))
    model = headed("bert", tagged=False, dtype=torch.float64)
    named = {"rare": 6.0, "odd": 0.5}
    objective = objective_of(model, False, class_weights=named)
    assert "weighted" in objective.choose(documents)
    batch = rows(documents, False)
    labels = batch.pop("labels")
    weight = torch.tensor([1.0, 0.5, 6.0], dtype=torch.float64)
    want = CrossEntropyLoss(weight=weight)(model(**batch).logits, labels)
    got = objective.loss_sum(collate(documents), scale=1 / len(documents))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_focal_and_cost_are_reached_from_the_config(tmp_path) -> None:
    documents = list(store(tmp_path / "t.arrow", texts(10)))
    model = headed("llama", tagged=False, dtype=torch.float64)
    batch = rows(documents, False)
    labels = batch.pop("labels")
    logp = model(**batch).logits.log_softmax(-1)
    p = logp.exp().gather(1, labels[:, None])[:, 0]
    focal = objective_of(model, False, loss={"type": "focal", "gamma": 3.0})
    focal.choose(documents)
    torch.testing.assert_close(focal.loss_sum(collate(documents)), -((1 - p) ** 3 * p.log()).sum())
    cost = objective_of(model, False, loss={"type": "cost", "costs": {"rare": {"even": 10.0}}})
    cost.choose(documents)
    costs = torch.tensor([[0.0, 1, 1], [1, 0, 1], [10, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(cost.loss_sum(collate(documents)), (logp.exp() * costs[labels]).sum())


def test_unknown_labels_and_balance_without_classes_are_refused(tmp_path) -> None:
    model = headed("bert", tagged=False)
    with pytest.raises(ConfigError, match=r"no label 'rere'.*\n.*\n.*rare"):
        objective_of(model, False, loss={"type": "cost", "costs": {"rere": {"even": 2.0}}})
    with pytest.raises(ConfigError, match="no label 'Odd'"):
        objective_of(model, False, class_weights={"Odd": 2.0}).choose(
            list(store(tmp_path / "t.arrow", texts(5)))
        )
    with pytest.raises(ValidationError, match="does not give them"):
        TrainConfig.model_validate({"balanced_batches": True})
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(TrainError, match="not finite"):
        objective_of(model, False).choose(list(store(tmp_path / "u.arrow", texts(5))))


def test_balanced_steps_hold_all_classes_alike_and_lose_nothing(tmp_path) -> None:
    tokens = store(tmp_path / "t.arrow", texts(200))
    sampler = BalancedSampler(tokens.lengths, tokens.classes, seed=3, tokens_per_step=400, packing=True)
    counts = np.bincount(tokens.classes)
    assert counts.min() * 3 < counts.max()  # the data is skewed
    for epoch in range(3):
        steps = sampler.steps(epoch)
        drawn = np.concatenate(steps)
        assert set(drawn.tolist()) == set(range(200))
        assert np.bincount(tokens.classes[drawn]).tolist() == [counts.max()] * 3
        for step in steps:
            each = np.bincount(tokens.classes[step], minlength=3)
            assert each.max() - each.min() <= 2
            assert tokens.lengths[step].sum() <= 400
        times = np.bincount(drawn, minlength=200)
        for label in range(3):  # the documents of one class come equally often
            assert np.ptp(times[tokens.classes == label]) <= 1
    assert steps != sampler.steps(0)
    again = BalancedSampler(tokens.lengths, tokens.classes, seed=3, tokens_per_step=400, packing=True)
    assert again.steps(2) == steps
    said = sampler.repeats(LABELS)
    often = float(re.search(r"rare ([0-9.]+) times", said)[1])
    assert often == pytest.approx(counts.max() / counts[2], rel=5e-3)
