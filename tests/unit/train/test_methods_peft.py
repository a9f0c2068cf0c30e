"""The methods that rest on peft, against peft's own modules in a loop written out here."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.optimizers import lorafa
from plain_steps import RATE, SETTINGS
from tiny_train import documents, fit, lines, tiny_llama, tiny_method
from torch import Tensor, nn
from torch.nn import functional

from tanzim.adapters.method import trainable
from tanzim.adapters.store import load_adapter
from tanzim.core.errors import ModelError, TrainError
from tanzim.core.records import Provenance, Rendered

CAUSAL: Any = {"task_type": peft.TaskType.CAUSAL_LM}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "rslora": {"rank": 4},
    "dora": {"rank": 4},
    "adalora": {"rank": 2, "initial_rank": 4},
    "lora_fa": {"rank": 4},
    "vera": {"rank": 8},
    "ia3": {},
    "prefix": {"tokens": 5},
    "prompt": {"tokens": 5},
    "p_tuning": {"tokens": 5, "encoder_hidden": 16},
}
ADALORA = peft.AdaLoraConfig(
    **CAUSAL, init_r=4, target_r=2, lora_alpha=32, target_modules=LINEAR, total_step=6, tinit=1, tfinal=2
)
PEFT: dict[str, peft.PeftConfig] = {
    "rslora": peft.LoraConfig(**CAUSAL, r=4, lora_alpha=32, use_rslora=True, target_modules=LINEAR),
    "dora": peft.LoraConfig(**CAUSAL, r=4, lora_alpha=32, use_dora=True, target_modules=LINEAR),
    "adalora": ADALORA,
    "lora_fa": peft.LoraConfig(**CAUSAL, r=4, lora_alpha=32, target_modules=LINEAR),
    "vera": peft.VeraConfig(**CAUSAL, r=8, target_modules=LINEAR),
    "ia3": peft.IA3Config(
        **CAUSAL, target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "prefix": peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=5),
    "prompt": peft.PromptTuningConfig(**CAUSAL, num_virtual_tokens=5),
    "p_tuning": peft.PromptEncoderConfig(**CAUSAL, num_virtual_tokens=5, encoder_hidden_size=16),
}
STEPS = {"adalora": 6}  # of which the rank falls in three


def peft_model(kind: str, dtype: torch.dtype, like: nn.Module) -> Any:
    """Make peft's own model, with the starting values (and VeRA's random matrices) of ``like``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = peft.get_peft_model(tiny_llama(dtype, attn_implementation="sdpa"), PEFT[kind])
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in trainable(like).items():
            theirs[name].copy_(value)
        if kind == "lora_fa":
            for name, value in like.named_parameters():
                if "lora_A" in name:
                    theirs[name].copy_(value)
        if kind == "vera":
            for letter in ("vera_A", "vera_B"):
                getattr(model.base_model, letter)["default"] = getattr(like.base_model, letter)["default"]
    return model


def loss_of(model: Any, rows: list[Rendered], virtual: int) -> Tensor:
    """Return the mean loss by peft's own forward pass of every document alone."""
    total, weight = 0.0, 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits = model(input_ids=ids).logits[0, virtual:]
        losses = functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        total = total + losses @ torch.tensor(row.weights[1:], dtype=losses.dtype)
        weight += sum(row.weights[1:])
    return total / weight


def theirs(kind: str, model: Any, rows: list[Rendered], steps: int) -> dict[str, Tensor]:
    """Train peft's model with torch's AdamW."""
    values = {name: value for name, value in model.named_parameters() if value.requires_grad}
    decays = [value for name, value in values.items() if value.ndim >= 2 and kind != "ia3"]
    rest = [value for name, value in values.items() if value.ndim < 2 or kind == "ia3"]
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=RATE)
    virtual = 5 if kind in ("prompt", "p_tuning") else 0
    for step in range(steps):
        loss = loss_of(model, rows, virtual)
        if kind == "adalora":
            ids = torch.tensor([[1, 2, 3]])  # peft adds its penalty to the loss of its own forward pass
            penalty = (
                model(input_ids=ids, labels=ids).loss - model.get_base_model()(input_ids=ids, labels=ids).loss
            )
            loss = loss + penalty
        loss.backward()
        optimizer.step()
        if kind == "adalora":
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    return {name: value.detach() for name, value in values.items()}


def run(root: Path, kind: str, dtype: torch.dtype, rows: list[Rendered], steps: int, **settings: Any) -> Any:
    method: Any = {"type": kind, **KINDS[kind], **settings.pop("method", {})}
    prepared = tiny_method(tiny_llama(dtype), **method)
    start = {name: value.detach().clone() for name, value in prepared.model.named_parameters()}
    reference = peft_model(kind, dtype, prepared.model) if kind in PEFT else None
    fit(root, prepared=prepared, train_documents=rows, method=method, max_steps=steps, **SETTINGS | settings)
    return prepared, start, reference


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lora_fa"])
def test_steps_equal_pefts_own(kind: str, tmp_path: Path) -> None:
    rows, steps = documents(12), STEPS.get(kind, 3)
    settings = {"method": {"warmup_share": 1 / 6, "final_share": 2 / 6}} if kind == "adalora" else {}
    prepared, start, reference = run(tmp_path, kind, torch.float64, rows, steps, **settings)
    want = theirs(kind, reference, rows, steps)
    assert want.keys() == prepared.parameters.keys()
    for name, value in prepared.parameters.items():
        # Rotary angles, norms and learnt vectors are float32 in a float64 model, too.
        torch.testing.assert_close(value.detach(), want[name], rtol=2e-4, atol=2e-5)
        if "lora_A" not in name and "lora_E" not in name:  # some of AdaLoRA's are set to zero
            assert not torch.equal(value, start[name])


def test_lora_fa_equals_pefts_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # peft computes its projection in bfloat16 where it can: three digits, which no test could hold ours to.
    monkeypatch.setattr(lorafa, "is_bf16_available", lambda: False)
    rows = documents(12)
    epsilon = {"optimizer": {"type": "adamw", "epsilon": 1e-12}, "weight_decay": 0.0}
    prepared, start, reference = run(tmp_path, "lora_fa", torch.float64, rows, 3, **epsilon)
    optimizer = lorafa.create_lorafa_optimizer(reference, r=4, lora_alpha=32, lr=RATE)
    optimizer.param_groups[0]["eps"] = 1e-12
    for _ in range(3):
        loss_of(reference, rows, 0).backward()
        optimizer.step()
        optimizer.zero_grad()
    want = dict(reference.named_parameters())
    assert all("lora_B" in name for name in prepared.parameters)
    for name, value in prepared.parameters.items():
        torch.testing.assert_close(value, want[name], rtol=1e-3, atol=RATE / 200)
        assert float((value.detach() - start[name]).abs().max()) > RATE


@pytest.mark.parametrize("kind", KINDS)
def test_all_else_stays_to_the_bit_and_differs_from_lora(kind: str, tmp_path: Path) -> None:
    prepared, start, _ = run(tmp_path, kind, torch.float32, documents(12), 3)
    for name, value in prepared.model.named_parameters():
        if name not in prepared.parameters:
            assert torch.equal(value, start[name]), name
    plain = tiny_method(type="lora", rank=4)
    fit(
        tmp_path / "lora",
        prepared=plain,
        train_documents=documents(12),
        max_steps=3,
        method={"type": "lora", "rank": 4},
        **SETTINGS,
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        ours = prepared.model.eval()(input_ids=ids).logits[:, -20:]
        theirs = plain.model.eval()(input_ids=ids).logits
    assert float((ours - theirs).abs().max()) > 1e-3


def few_words(count: int) -> list[Rendered]:
    """Texts of four of the 97 tokens, in turn."""
    made = []
    for row in range(1, count + 1):
        ids = tuple(10 + (row + place) % 4 for place in range(12))
        made.append(Rendered(ids, (0.0,) + (1.0,) * 11, (), Provenance("few", row)))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_is_read_back_by_peft(kind: str, tmp_path: Path) -> None:
    method: Any = {"type": kind, **KINDS[kind]}
    base = {"initializer_range": 0.15}  # a model whose outputs a small change can reach
    prepared = tiny_method(tiny_llama(**base), **method)
    result = fit(
        tmp_path,
        prepared=prepared,
        method=method,
        epochs=20,
        max_steps=15,
        learning_rate=0.05,
        warmup_steps=0,
        train_documents=few_words(8),
        validation_documents=[],
        schedule="constant",
    )
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    assert losses[-1] < 0.7 * losses[0], losses
    ids = torch.arange(12)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = prepared.model.eval()(input_ids=ids).logits
        plain = peft.PeftModel.from_pretrained(tiny_llama(**base), str(result.output)).eval()
        torch.testing.assert_close(plain(input_ids=ids).logits, want, rtol=1e-5, atol=1e-5)
        ours = load_adapter(tiny_llama(**base), result.output, name="lora_default", base_hash="b" * 64).eval()
        torch.testing.assert_close(ours(input_ids=ids).logits, want, rtol=1e-5, atol=1e-5)
        assert not trainable(ours)
        if kind in ("prefix", "prompt", "p_tuning"):
            return
        merged: Callable[..., Any] = plain.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["adalora", "p_tuning"])
def test_resume_is_equal_to_the_bit(kind: str, tmp_path: Path) -> None:
    method: Any = {"type": kind, **KINDS[kind]}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, method=method, max_steps=7, epochs=9, save_steps=1, weight_decay=0.1)
    interrupted: list[int] = []

    def stop(line: Any) -> None:
        if line["kind"] == "train" and line["step"] in (3, 5) and line["step"] not in interrupted:
            interrupted.append(line["step"])
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        with pytest.raises(TrainError, match="interrupted"):
            fit(parts, method=method, max_steps=7, epochs=9, save_steps=1, weight_decay=0.1, on_line=stop)
    fit(parts, method=method, max_steps=7, epochs=9, save_steps=1, weight_decay=0.1)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        ours, theirs = ((root / "run" / "adapter" / name).read_bytes() for root in (parts, whole))
        assert ours == theirs
    assert lines(parts, "train") == lines(whole, "train")


def test_adalora_divides_its_budget(tmp_path: Path) -> None:
    method: Any = {"type": "adalora", **KINDS["adalora"]}
    prepared = tiny_method(**method)
    fit(tmp_path, prepared=prepared, method=method, max_steps=10, validation_documents=[])
    kept = prepared.model.peft_config["default"].rank_pattern
    assert sum(map(sum, kept.values())) == 2 * len(kept)  # the average rank asked for
    assert len({sum(ranks) for ranks in kept.values()}) > 1  # not the same everywhere
    said = [line["message"] for line in lines(tmp_path, "event")]
    assert any("2.0 on average" in message for message in said)


def test_adalora_needs_steps(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="at least 2 optimiser steps"):
        fit(tmp_path, method={"type": "adalora"}, max_steps=1)


def test_vera_shares_its_matrices_over_layers_of_different_shapes() -> None:
    model: Any = tiny_method(type="vera", rank=8).model
    layers = [module for module in model.modules() if hasattr(module, "vera_lambda_b")]
    assert {(layer.out_features, layer.in_features) for layer in layers} == {
        (32, 32),
        (16, 32),
        (48, 32),
        (32, 48),
    }
    assert len({layer.vera_A["default"].data_ptr() for layer in layers}) == 1


def test_a_prompt_starts_from_words(tmp_path: Path, tiny_tokenizer: Any) -> None:
    tiny_llama(vocab_size=300).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    base = tiny_llama(vocab_size=300)
    base.name_or_path = str(tmp_path)
    model: Any = tiny_method(base, type="prompt", tokens=5, text="hello").model
    ids = tiny_tokenizer("hello", add_special_tokens=False)["input_ids"]
    wanted = base.get_input_embeddings().weight[(ids * 5)[:5]]
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, wanted)
    with pytest.raises(ModelError, match="no tokenizer"):
        tiny_method(type="prompt", tokens=5, text="hello")


def test_a_prefix_starts_as_the_keys_and_values_of_real_tokens() -> None:
    method = tiny_method(type="prefix", tokens=5)
    model: Any = method.model
    cache = model.get_prompt(1)
    # The model without its prefix gives these keys and values to some five tokens of its vocabulary.
    found = cache.layers[0].values[0, 0, 0]
    base = tiny_llama()
    embedded = base.model.layers[0].input_layernorm(base.get_input_embeddings().weight)
    values = base.model.layers[0].self_attn.v_proj(embedded)[:, : found.shape[0]]
    assert float((values - found).detach().norm(dim=1).min()) < 1e-5


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"type": "dora", "target_modules": ["nothing"]}, "no linear layer 'nothing'"),
        ({"type": "vera", "target_modules": ["nothing"]}, "no linear layer 'nothing'"),
        ({"type": "adalora", "target_modules": []}, "no layer to adapt is named"),
        ({"type": "ia3", "target_modules": ["nothing"]}, "no linear layer 'nothing'"),
        ({"type": "qlora"}, "loaded in 4 bits"),
    ],
)
def test_what_does_not_fit_is_named(method: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tiny_method(**method)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"type": "dora", "rank": 0}, "rank"),
        ({"type": "vera", "rank": 0}, "rank"),
        ({"type": "lora_fa", "alpha": float("nan")}, "alpha"),
        ({"type": "adalora", "rank": 8, "initial_rank": 8}, "does not exceed"),
        ({"type": "prompt", "tokens": 0}, "tokens"),
    ],
)
def test_impossible_settings_are_refused(method: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_method(**method)


def test_a_prefix_is_not_lost_to_recomputation(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="cannot be recomputed under prefix tuning"):
        fit(tmp_path, method={"type": "prefix", "tokens": 3}, gradient_checkpointing=True)


def test_kinds_that_peft_does_not_mix_are_named(tmp_path: Path) -> None:
    for kind in ("vera", "ia3"):
        tiny_method(type=kind).save(tmp_path / kind)
    model = load_adapter(tiny_llama(), tmp_path / "vera", name="one", base_hash="b" * 64)
    with pytest.raises(ModelError, match="cannot stand beside"):
        load_adapter(model, tmp_path / "ia3", name="two", base_hash="b" * 64)
