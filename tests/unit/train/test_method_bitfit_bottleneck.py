"""BitFit and bottleneck adapters against an AdamW loop of their own, on Llama and GPT-2 shapes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_steps import SETTINGS, Adam, Values, farthest, gradients, mean_loss
from safetensors.torch import load_file
from tiny_train import documents, fit, lines, tiny_llama, tiny_method
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from tanzim.adapters.fast import accelerate
from tanzim.core.errors import ModelError, TrainError

BOTTLENECK: dict[str, Any] = {"type": "bottleneck", "size": 5, "activation": "silu"}
IDS = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(0))


def tiny_gpt2(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=97,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        attn_implementation="sdpa",
    )
    torch.manual_seed(7)
    model: GPT2LMHeadModel = GPT2LMHeadModel(config).to(dtype)
    return model


def llama(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Plain scales as norms, and biases on the attention's matrices."""
    model = tiny_llama(dtype, attention_bias=True)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            value.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def saved(root: Path) -> Values:
    return load_file(root / "run" / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (llama, lambda name: name.endswith("bias")),
        (tiny_llama, lambda name: "norm" in name),
        (tiny_gpt2, lambda name: name.endswith("bias")),
    ],
)
def test_bitfit_steps_equal_adamw_on_vectors(make: Any, wanted: Any, tmp_path: Path) -> None:
    rows = documents(12)
    fit(
        tmp_path,
        model=make(torch.float64),
        method={"type": "bitfit"},
        train_documents=rows,
        max_steps=3,
        **SETTINGS,
    )
    model = make(torch.float64)
    model.set_attn_implementation("sdpa")
    values = {name: value.detach() for name, value in model.named_parameters()}
    chosen = [name for name in values if wanted(name)]
    assert {name: value.shape for name, value in saved(tmp_path).items()} == {
        name: values[name].shape for name in chosen
    }
    optimizer = Adam(values)
    for _ in range(3):
        optimizer.step(gradients(lambda leaves: mean_loss(model, leaves, rows), values, chosen))
    ours = saved(tmp_path)
    assert farthest(ours, {name: values[name] for name in chosen}) < 1e-5
    before = dict(make(torch.float64).named_parameters())
    assert all(float((ours[name] - before[name].detach()).abs().max()) > 1e-2 for name in chosen)


def test_bitfit_trains_half_precision_biases_in_float32() -> None:
    method = tiny_method(llama(torch.bfloat16), type="bitfit")
    assert {value.dtype for value in method.parameters.values()} == {torch.float32}
    matrices = [v for n, v in method.model.named_parameters() if n not in method.parameters]
    assert {value.dtype for value in matrices} == {torch.bfloat16}


@contextmanager
def bottlenecks(model: nn.Module, leaves: Values, activate: Any) -> Iterator[None]:
    """Add z + U·f(D·z) after chosen layers by hooks."""
    hooks = []
    for path in {name.rsplit(".", 2)[0] for name in leaves}:
        down, up = (
            [leaves[f"{path}.{part}.{kind}"] for kind in ("weight", "bias")] for part in ("down", "up")
        )

        def widen(_: nn.Module, __: Any, z: Tensor, down: Any = down, up: Any = up) -> Tensor:
            return z + functional.linear(activate(functional.linear(z, *down)), *up)

        hooks.append(model.get_submodule(path).register_forward_hook(widen))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("make", "places"),
    [
        (tiny_llama, {"model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj"}),
        (tiny_gpt2, {"transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"}),
    ],
)
def test_bottleneck_steps_equal_adamw(make: Any, places: set[str], tmp_path: Path) -> None:
    rows = documents(12)
    prepared = tiny_method(make(torch.float64), **BOTTLENECK)
    first = {name: value.detach().clone() for name, value in prepared.parameters.items()}
    assert {name.rsplit(".", 2)[0] for name in first} == {p.format(i) for p in places for i in range(2)}
    before = {n: v.detach().clone() for n, v in prepared.model.named_parameters() if n not in first}
    fit(tmp_path, prepared=prepared, method=BOTTLENECK, train_documents=rows, max_steps=3, **SETTINGS)
    for name, value in prepared.model.named_parameters():
        assert name in first or torch.equal(value, before[name]), name

    model = make(torch.float64)
    model.set_attn_implementation("sdpa")

    def loss(leaves: Values) -> Tensor:
        with bottlenecks(model, leaves, functional.silu):
            return mean_loss(model, {}, rows)

    optimizer = Adam(first)
    for _ in range(3):
        optimizer.step(gradients(loss, first))
    assert farthest(saved(tmp_path), first) < 1e-5
    assert all(float(value.abs().max()) > 1e-3 for value in saved(tmp_path).values())


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_bottlenecks_begin_as_the_base_and_differ_by_seed(make: Any) -> None:
    model = make().eval()
    with torch.no_grad():
        plain = model(input_ids=IDS).logits
        method = tiny_method(model, **BOTTLENECK)
        assert torch.equal(method.model(input_ids=IDS).logits, plain)
    down = [value for name, value in method.parameters.items() if name.endswith("down.weight")]
    assert not torch.equal(down[0], down[2])
    again = tiny_method(make(), **BOTTLENECK)
    assert all(torch.equal(value, again.parameters[name]) for name, value in method.parameters.items())


def test_the_fast_layers_leave_bottlenecks_and_biases_to_the_model() -> None:
    for model, method in ((tiny_llama(), BOTTLENECK), (tiny_llama(), {"type": "bitfit"})):
        note = accelerate(tiny_method(model, **method).model)[0]
        assert "runs the model's own layers" in note


@pytest.mark.parametrize("method", [BOTTLENECK, {"type": "bitfit"}])
def test_resume_is_bit_equal(method: dict[str, Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": method, "max_steps": 6, "epochs": 9.0}
    fit(tmp_path / "plain", **settings)

    def interrupt(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainError, match="interrupted after step 3"):
        fit(tmp_path / "cut", on_line=interrupt, **settings)
    fit(tmp_path / "cut", **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "plain", "train")
    assert farthest(saved(tmp_path / "cut"), saved(tmp_path / "plain")) == 0


@pytest.mark.parametrize(("method", "rate"), [(BOTTLENECK | {"size": 32}, 2e-2), ({"type": "bitfit"}, 1e-1)])
def test_both_learn(method: dict[str, Any], rate: float, tmp_path: Path) -> None:
    settings = {**SETTINGS, "learning_rate": rate, "max_steps": 30}
    base = tiny_llama(initializer_range=0.3)
    fit(tmp_path, model=base, method=method, train_documents=documents(20), **settings)
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    assert losses[-1] < losses[0] - 1


def test_a_mixture_of_experts_has_no_one_output() -> None:
    config = MixtralConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    with pytest.raises(ModelError, match="feed-forward part was not found"):
        tiny_method(MixtralForCausalLM(config), **BOTTLENECK)
