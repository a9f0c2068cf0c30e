from __future__ import annotations

import gc
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_train import VOCABULARY, documents, fit, lines, store, tiny_llama, tiny_lora
from torch.nn import functional

from tanzim.adapters.fast import accelerate
from tanzim.core.errors import MissingExtra, RunError, TrainError
from tanzim.core.records import Provenance, Rendered
from tanzim.core.run import RunFolder
from tanzim.train.batches import Sampler, collate
from tanzim.train.config import AdamWConfig, TrainConfig
from tanzim.train.memory import recompute_activations
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.optimizers import make_optimizer
from tanzim.train.tokens import Document

# Ways to split the same steps: passes of every size, one document a pass, and all at once.
SPLITS = [{"tokens_per_pass": 512}, {"tokens_per_pass": 170}, {"tokens_per_pass": 41}, {"packing": False}]


def adapter(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "run" / "adapter" / "adapter_model.safetensors")


def test_every_split_of_a_step_gives_the_same_losses_and_weights(tmp_path: Path) -> None:
    results = []
    for index, split in enumerate(SPLITS):
        root = tmp_path / str(index)
        settings = {"tokens_per_step": 512, "tokens_per_pass": 512, "max_steps": 4} | split
        fit(
            root,
            model=tiny_lora(dtype=torch.float64),
            train_documents=documents(60, weighted=True),
            **settings,
        )
        results.append((lines(root, "train"), adapter(root)))
    for metrics, weights in results[1:]:
        for line, first in zip(metrics, results[0][0], strict=True):
            assert line["loss"] == pytest.approx(first["loss"], rel=1e-6)
            assert line["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-6)
            assert line["tokens"] == first["tokens"]
        for name, value in weights.items():
            torch.testing.assert_close(value, results[0][1][name], rtol=1e-6, atol=1e-9)


def test_training_equals_a_plain_loop(tmp_path: Path) -> None:
    """The same steps, by transformers' own logits and PyTorch's AdamW, one document at a time."""
    rows = documents(40, weighted=True)
    settings: dict[str, Any] = {"tokens_per_step": 300, "tokens_per_pass": 100, "epochs": 2.0}
    settings |= {"weight_decay": 0.1, "warmup_steps": 2, "max_grad_norm": 0.5, "learning_rate": 1e-2}
    fit(
        tmp_path,
        model=tiny_lora(dtype=torch.float64),
        train_documents=rows,
        validation_documents=[],
        **settings,
    )

    model = tiny_lora(dtype=torch.float64).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, foreach=False)
    lengths = store(tmp_path / "again.arrow", rows).lengths
    sampler = Sampler(lengths, seed=5, tokens_per_step=300, packing=True)
    steps = [step for epoch in range(2) for step in sampler.steps(epoch)]
    expected = []
    for number, step in enumerate(steps):
        weight = sum(sum(rows[i].weights[1:]) for i in step)
        optimizer.zero_grad()
        losses = []
        for index in step:
            ids = torch.tensor(rows[index].ids)
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            loss_T = functional.cross_entropy(logits, ids[1:], reduction="none")
            losses.append(loss_T @ torch.tensor(rows[index].weights[1:], dtype=torch.float64) / weight)
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        rise = number / 2 if number < 2 else 1 - (number - 2) / (len(steps) - 2)
        optimizer.param_groups[0]["lr"] = 1e-2 * rise
        optimizer.step()
        expected.append(torch.stack(losses).sum().item())
    assert [line["loss"] for line in lines(tmp_path, "train")] == pytest.approx(expected, rel=1e-6)


def test_evaluation_is_the_mean_loss_over_trained_tokens(tmp_path: Path) -> None:
    held_out = documents(12, seed=9, weighted=True)
    model = tiny_lora(dropout=0.3)
    fit(
        tmp_path,
        model=model,
        validation_documents=held_out,
        max_steps=3,
        eval_steps=2,
        learning_rate=1e-3,
    )
    evaluations = lines(tmp_path, "eval")
    assert [line["step"] for line in evaluations] == [2, 3]
    assert evaluations[-1]["best"]  # so that the model holds its weights
    model.eval()
    total = weight = 0.0
    for row in held_out:
        ids = torch.tensor(row.ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses = functional.cross_entropy(logits, ids[1:], reduction="none")
        total += float(losses @ torch.tensor(row.weights[1:]))
        weight += sum(row.weights[1:])
    assert evaluations[-1]["loss"] == pytest.approx(total / weight, rel=1e-5)
    assert evaluations[-1]["perplexity"] == pytest.approx(math.exp(total / weight), rel=1e-5)


def test_it_learns(tmp_path: Path) -> None:
    result = fit(tmp_path, model=tiny_llama(), method={"type": "full"}, epochs=20, learning_rate=5e-3)
    train_lines = lines(tmp_path, "train")
    assert train_lines[0]["loss"] > 4.3  # ln 97 = 4.57
    assert train_lines[-1]["loss"] < 2.5
    assert result.output == RunFolder(tmp_path / "run").model


def test_full_training_moves_the_tied_vocabulary(tmp_path: Path) -> None:
    model = tiny_llama()
    before = model.lm_head.weight.detach().clone()
    fit(tmp_path, model=model, method={"type": "full"}, max_steps=2)
    assert not torch.equal(model.lm_head.weight, before)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_best_checkpoint_is_chosen_and_kept(tmp_path: Path) -> None:
    # A huge learning rate makes the model worse after its first steps.
    result = fit(tmp_path, epochs=3, learning_rate=1.0, eval_steps=1, schedule="constant", keep_checkpoints=1)
    evaluations = lines(tmp_path, "eval")
    best = min(evaluations, key=lambda line: line["loss"])
    assert result.best_step == best["step"] < result.step
    assert result.best_loss == best["loss"]
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == sorted([f"checkpoint-{best['step']}", f"checkpoint-{result.step}"])
    chosen = load_file(tmp_path / f"run/checkpoints/checkpoint-{best['step']}/weights.safetensors")
    written = {name.replace(".weight", ".default.weight"): value for name, value in adapter(tmp_path).items()}
    for name, value in chosen.items():
        assert torch.equal(written[name], value)


def test_patience_stops_early(tmp_path: Path) -> None:
    result = fit(tmp_path, epochs=50, learning_rate=1.0, eval_steps=1, patience=3, schedule="constant")
    assert result.stopped == "no better validation loss in 3 evaluations"
    assert result.step == result.best_step + 3 < result.total_steps


def test_without_validation_the_last_weights_are_chosen(tmp_path: Path) -> None:
    result = fit(tmp_path, validation_documents=[])
    assert (result.best_step, result.best_loss) == (result.total_steps, None)
    assert lines(tmp_path, "eval") == []


def test_decay_is_on_matrices_only() -> None:
    parameters = {"w": torch.nn.Parameter(torch.ones(2, 2)), "b": torch.nn.Parameter(torch.ones(2))}
    config = TrainConfig(
        weight_decay=0.5, learning_rate=0.1, optimizer=AdamWConfig(beta1=0.7, beta2=0.8, epsilon=1e-6)
    )
    optimizer = make_optimizer(parameters, config)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert parameters["w"].tolist() == [[pytest.approx(0.95)] * 2] * 2
    assert parameters["b"].tolist() == [1, 1]
    assert {(g["betas"], g["eps"]) for g in optimizer.param_groups} == {((0.7, 0.8), 1e-6)}


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_not_finite_stops_before_the_optimiser(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_lora()
    before: dict[str, torch.Tensor] = {}
    original = LanguageModel.loss_sum

    def poisoned(self: LanguageModel, batch: Any, **kwargs: Any) -> torch.Tensor:
        loss = original(self, batch, **kwargs)
        rows = [document.provenance.row for document in batch.documents]
        if torch.is_grad_enabled() and 13 in rows:
            before.update({n: p.detach().clone() for n, p in model.named_parameters()})
            if what == "loss":
                return loss * float("nan")
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(LanguageModel, "loss_sum", poisoned)
    with pytest.raises(TrainError, match=f"the {what} became") as caught:
        fit(tmp_path, model=model, tokens_per_pass=40)
    assert "in step" in caught.value.what
    if what == "loss":
        assert "rows-0.jsonl, row 13" in str(caught.value.where)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: not enough memory"),
    ],
)
@pytest.mark.parametrize("during", ["training", "evaluation"])
def test_out_of_memory_goes_on_with_smaller_passes(
    error: RuntimeError, during: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tmp_path / "plain", model=tiny_lora(dtype=torch.float64), tokens_per_pass=256)
    original = LanguageModel.loss_sum
    failed: list[int] = []

    def failing(self: LanguageModel, batch: Any, **kwargs: Any) -> torch.Tensor:
        if torch.is_grad_enabled() == (during == "training") and batch.tokens > 128 and len(failed) < 9:
            failed.append(batch.tokens)
            raise error
        return original(self, batch, **kwargs)

    monkeypatch.setattr(LanguageModel, "loss_sum", failing)
    result = fit(tmp_path / "tight", model=tiny_lora(dtype=torch.float64), tokens_per_pass=256)
    assert result.tokens_per_pass <= 128
    assert any(
        "out of memory: tokens_per_pass 256 →" in e["message"] for e in lines(tmp_path / "tight", "event")
    )
    plain, tight = lines(tmp_path / "plain", "train"), lines(tmp_path / "tight", "train")
    assert [line["tokens"] for line in tight] == [line["tokens"] for line in plain]
    assert [line["loss"] for line in tight] == pytest.approx([line["loss"] for line in plain], rel=1e-6)


def test_a_document_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LanguageModel.loss_sum

    def failing(self: LanguageModel, batch: Any, **kwargs: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and batch.max_length > 38:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, batch, **kwargs)

    monkeypatch.setattr(LanguageModel, "loss_sum", failing)
    with pytest.raises(TrainError, match=r"a single document of (39|40) tokens") as caught:
        fit(tmp_path)
    assert "rows-0.jsonl, row" in str(caught.value.where)
    assert "gradient_checkpointing" in str(caught.value.fix)


def test_other_runtime_errors_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: LanguageModel, batch: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(LanguageModel, "choose", lambda self, documents: "")
    monkeypatch.setattr(LanguageModel, "loss_sum", failing)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(tmp_path)


def test_gradient_checkpointing_changes_no_loss(tmp_path: Path) -> None:
    runs = {}
    for on in (False, True):
        root = tmp_path / str(on)
        fit(root, model=tiny_lora(dtype=torch.float64), gradient_checkpointing=on, max_steps=3)
        runs[on] = [line["loss"] for line in lines(root, "train")]
    assert runs[True] == pytest.approx(runs[False], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_autocast_stays_near_float32(dtype: torch.dtype, kind: str, tmp_path: Path) -> None:
    runs = []
    for autocast in (None, dtype):
        root = tmp_path / str(autocast)
        model = tiny_lora() if kind == "lora" else tiny_llama()
        fit(
            root,
            model=model,
            autocast=autocast,
            max_steps=4,
            method={"type": kind},
            learning_rate=2e-3,
        )
        runs.append([line["loss"] for line in lines(root, "train")])
    assert runs[1] == pytest.approx(runs[0], rel=2e-2)


def test_float16_overflow_skips_the_step_and_says_so(tmp_path: Path) -> None:
    # A loss scale of 65,536 overflows the gradients of a model whose head is large.
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    fit(
        tmp_path,
        model=model,
        autocast=torch.float16,
        method={"type": "full"},
        max_steps=4,
        learning_rate=1e-4,
        tokens_per_step=4000,
        tokens_per_pass=4000,
    )
    said = [line["message"] for line in lines(tmp_path, "event")]
    skipped = [line["step"] for line in lines(tmp_path, "train") if line["grad_norm"] is None]
    assert len([message for message in said if "float16 overflow" in message]) == len(skipped)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_finishes_the_step_and_resumes(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    fit(tmp_path / "plain", epochs=2)

    def interrupt(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(TrainError, match="interrupted after step 4 of") as caught:
        fit(tmp_path / "cut", epochs=2, on_line=interrupt)
    assert "run the same command again" in str(caught.value.fix)
    assert signal.getsignal(signal.SIGINT) is before
    fit(tmp_path / "cut", epochs=2)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "plain", "train")
    for name, value in adapter(tmp_path / "cut").items():
        assert torch.equal(value, adapter(tmp_path / "plain")[name])


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = fit(tmp_path)
    metrics = [lines(tmp_path, kind) for kind in ("train", "eval", "gradients")]
    again = fit(tmp_path)
    assert (again.step, again.best_step, again.loss) == (first.step, first.best_step, first.loss)
    assert [lines(tmp_path, kind) for kind in ("train", "eval", "gradients")] == metrics


def test_no_resume_starts_afresh(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=3)
    result = fit(tmp_path, max_steps=2, resume=False)
    assert result.step == 2
    assert [line["step"] for line in lines(tmp_path, "train")] == [1, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 0.02}, "train.learning_rate was 0.01 and is 0.02"),
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"base_hash": "c" * 64}, "base was 'bbb"),
        ({"train_documents": documents(61)}, "tokens was"),
        ({"validation_documents": documents(9, seed=1)}, "validation_tokens was"),
    ],
)
def test_another_config_data_or_base_is_refused(change: Any, named: str, tmp_path: Path) -> None:
    fit(tmp_path, max_steps=3)
    with pytest.raises(RunError) as caught:
        fit(tmp_path, **({"max_steps": 3} | change))
    assert named in caught.value.what


def test_what_does_not_change_the_learning_may_change(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=3)
    result = fit(tmp_path, max_steps=3, keep_checkpoints=5, tokens_per_pass=64)
    assert result.tokens_per_pass == 64


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no document"):
        fit(tmp_path, train_documents=[], validation_documents=[])
    rows = [*documents(3), Rendered((1, 2, 3), (1.0, 0.0, 0.0), (), Provenance("x.jsonl", 8))]
    with pytest.raises(TrainError, match="1 documents have no trained token") as caught:
        fit(tmp_path, train_documents=rows)
    assert caught.value.where == "x.jsonl, row 8"


def test_missing_tracker_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="mlflow"):
        fit(tmp_path, trackers=["mlflow"])
    assert not (tmp_path / "run").exists()


def test_lines_carry_position_and_counts(tmp_path: Path) -> None:
    rows = documents(60)
    result = fit(tmp_path, epochs=1.5, train_documents=rows)
    train_lines = lines(tmp_path, "train")
    assert [line["step"] for line in train_lines] == list(range(1, result.total_steps + 1))
    epoch = [line for line in train_lines if line["epoch"] <= 1]
    assert epoch[-1]["epoch"] == 1
    assert sum(line["tokens"] for line in epoch) == sum(len(row.ids) for row in rows)
    assert sum(line["trained_tokens"] for line in epoch) == sum(np.count_nonzero(r.weights) for r in rows)
    assert sum(line["tokens"] for line in train_lines) == result.tokens
    assert {line["steps"] for line in train_lines} == {result.total_steps}
    assert all(max(row.ids) < VOCABULARY for row in rows)


def test_fast_layers_train_like_plain_ones_also_with_checkpointing(tmp_path: Path) -> None:
    runs = {}
    for fast, recompute in ((False, False), (True, False), (True, True)):
        root = tmp_path / f"{fast}-{recompute}"
        model = tiny_lora(dtype=torch.float64)
        if fast:
            assert "fast path" in accelerate(model)[0]
        fit(root, model=model, gradient_checkpointing=recompute, max_steps=4)
        runs[fast, recompute] = [line["loss"] for line in lines(root, "train")]
    assert runs[True, False] == pytest.approx(runs[False, False], rel=1e-6)
    assert runs[True, True] == pytest.approx(runs[False, False], rel=1e-6)


def test_checkpointing_frees_what_fast_layers_keep() -> None:
    held = {}
    for recompute in (False, True):
        model = tiny_lora()
        accelerate(model)
        if recompute:
            recompute_activations(model)
        rows = [Document(np.arange(90, dtype=np.int32), np.ones(90, np.float32), Provenance("x", 1))]
        loss = LanguageModel(model.train()).loss_sum(collate(rows * 40))
        gc.collect()
        held[recompute] = sum(t.nbytes for t in gc.get_objects() if type(t) is torch.Tensor)
        del loss
    # Without: at least gate and up (48 wide, float32) of 3,600 tokens in both layers.
    assert held[False] - held[True] > 2 * 2 * 48 * 4 * 3600
