"""Averaged weights, noise on the embeddings and smoothed labels: against torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_train import VOCABULARY, documents, fit, lines, tiny_llama, tiny_lora
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers.integrations.neftune import neftune_post_forward_hook

from tanzim.models.kernels.loss import trained_token_loss
from tanzim.train.batches import collate
from tanzim.train.ema import Ema
from tanzim.train.neftune import Neftune
from tanzim.train.objectives.base import evaluating
from tanzim.train.objectives.config import LanguageModelConfig
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.tokens import Document

EMA: dict[str, Any] = {
    "ema_decay": 0.8,
    "method": {"type": "full"},
    "max_steps": 6,
    "epochs": 9.0,
    "schedule": "constant",
}


def test_the_average_equals_torch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3).double()
    ours = Ema(dict(model.named_parameters()), 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update()
        theirs.update_parameters(model)
    own = model.weight.detach().clone()
    with ours.swapped():
        torch.testing.assert_close(model.weight, theirs.module.weight, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model.bias, theirs.module.bias, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(model.weight, own)
    assert torch.equal(model.weight, own)


def test_a_run_evaluates_and_saves_the_average_of_its_steps(tmp_path: Path) -> None:
    """The steps themselves are those of a run without an average; what is saved is their average."""
    fit(
        tmp_path / "plain",
        model=tiny_llama(),
        save_steps=1,
        keep_checkpoints=9,
        **(EMA | {"ema_decay": None}),
    )
    fit(tmp_path / "average", model=tiny_llama(), validation_documents=[], **EMA)
    assert lines(tmp_path / "plain", "train") == lines(tmp_path / "average", "train")
    weights = [
        load_file(tmp_path / f"plain/run/checkpoints/checkpoint-{step}/weights.safetensors")
        for step in range(1, 7)
    ]
    saved = load_file(tmp_path / "average/run/model/model.safetensors")
    for name, value in saved.items():
        want = weights[0][name].double()
        for later in weights[1:]:
            want = 0.8 * want + 0.2 * later[name].double()
        torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, weights[-1][name])


def test_an_evaluation_is_of_the_average(tmp_path: Path) -> None:
    model = tiny_llama()
    fit(tmp_path, model=model, eval_steps=6, **EMA)
    last = lines(tmp_path, "eval")[-1]
    assert last["best"]
    held_out = [
        Document(torch.tensor(d.ids).numpy(), torch.tensor(d.weights).numpy(), d.provenance)
        for d in documents(8, seed=1)
    ]
    objective = LanguageModel(model)
    objective.choose(held_out)
    with torch.no_grad(), evaluating(model):  # the model holds the chosen weights, which are the average
        loss = float(objective.loss_sum(collate(held_out))) / sum(d.weight for d in held_out)
    assert last["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("more", [{}, {"neftune_alpha": 5.0}, {"objective": {"label_smoothing": 0.1}}])
def test_a_cut_run_goes_on_bit_for_bit(more: dict[str, Any], tmp_path: Path) -> None:
    def stop(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 4:
            raise KeyboardInterrupt

    fit(tmp_path / "whole", model=tiny_llama(), eval_steps=3, **EMA, **more)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", model=tiny_llama(), eval_steps=3, on_line=stop, **EMA, **more)
    fit(tmp_path / "cut", model=tiny_llama(), eval_steps=3, **EMA, **more)
    for kind in ("train", "eval"):
        assert lines(tmp_path / "whole", kind) == lines(tmp_path / "cut", kind)
    whole, cut = (load_file(tmp_path / run / "run/model/model.safetensors") for run in ("whole", "cut"))
    for name, value in whole.items():
        assert torch.equal(value, cut[name])


def noise_of(model: torch.nn.Module, inputs: dict[str, Any], width: int) -> torch.Tensor:
    """Return what the embeddings of the first layer have that the plain ones have not, [T, D]."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    embeddings = inner.get_input_embeddings()
    seen: list[torch.Tensor] = []
    handle = inner.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model(**inputs)
    handle.remove()
    with torch.no_grad():
        plain = functional.embedding(inputs["input_ids"], embeddings.weight)
    return (seen[0] - plain)[0].view(-1, width)


@pytest.mark.parametrize("adapter", [False, True])
def test_noise_equals_transformers_document_by_document(adapter: bool) -> None:
    """In a packed row every document has the noise it would have alone, by its own length."""
    model = tiny_lora() if adapter else tiny_llama()
    model.train()
    inner: Any = model.get_base_model() if adapter else model
    noisy = Neftune(model, 5.0)
    lengths = [4, 30, 9]
    ids = torch.randint(0, VOCABULARY, (1, sum(lengths)))
    borders = torch.tensor([0, 4, 34, 43], dtype=torch.int32)
    packed = {
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": 30,
        "max_length_k": 30,
        "use_cache": False,
    }
    ours = [noise_of(model, packed, 32) for _ in range(60)]
    noisy.remove()
    embeddings = inner.get_input_embeddings()
    embeddings.neftune_noise_alpha = 5.0
    handle = embeddings.register_forward_hook(neftune_post_forward_hook)
    for number, length in enumerate(lengths):
        part = slice(int(borders[number]), int(borders[number + 1]))
        alone = {"input_ids": ids[:, part], "use_cache": False}
        theirs = torch.cat([noise_of(model, alone, 32).flatten() for _ in range(60)])
        mine = torch.cat([noise[part].flatten() for noise in ours])
        bound = 5.0 / (length * 32) ** 0.5
        assert float(mine.abs().max()) <= bound * (1 + 1e-5)
        assert float(mine.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.01)
        assert float(mine.std()) == pytest.approx(float(theirs.std()), rel=0.05)
        assert float(mine.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert abs(float(mine.mean())) < bound * 0.05
    handle.remove()


def test_noise_is_the_trainings_alone(tmp_path: Path) -> None:
    runs = {}
    for alpha in (None, 20.0):
        root = tmp_path / str(alpha)
        fit(
            root,
            model=tiny_llama(),
            neftune_alpha=alpha,
            max_steps=1,
            learning_rate=1e-9,
            schedule="constant",
        )
        runs[alpha] = lines(root, "train")[0]["loss"], lines(root, "eval")[0]["loss"]
    assert runs[None][0] != pytest.approx(runs[20.0][0], rel=1e-4)
    assert runs[None][1] == pytest.approx(runs[20.0][1], rel=1e-6)


@pytest.mark.parametrize("chunk", [3, 256])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_smoothed_labels_equal_torch(softcap: float | None, chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(31, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 31, (20,))
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5, 0.0] * 4, dtype=torch.float64)
    logits = functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)
    want = (losses * weights).sum() * 0.5
    got = trained_token_loss(
        hidden, weight, targets, weights, scale=0.5, chunk=chunk, bias_V=bias, softcap=softcap, smoothing=0.2
    )
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    inputs = [hidden, weight, bias]
    for ours, theirs in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_smoothing_is_the_trainings_alone_and_by_every_way() -> None:
    rows = [
        Document(torch.tensor(d.ids).numpy(), torch.tensor(d.weights).numpy(), d.provenance)
        for d in documents(5)
    ]
    model = tiny_llama(torch.float64)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # a model that is sure of itself, which smoothing is about
    plain, smooth = LanguageModel(model), LanguageModel(model, LanguageModelConfig(label_smoothing=0.1))
    with torch.no_grad(), evaluating(model):
        assert float(smooth.loss_sum(collate(rows))) == float(plain.loss_sum(collate(rows)))
    model.train()
    losses = []
    for way in (0, 1):
        smooth.way = smooth.ways[way]
        losses.append(float(smooth.loss_sum(collate(rows)).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0] != pytest.approx(float(plain.loss_sum(collate(rows)).detach()), rel=1e-4)
