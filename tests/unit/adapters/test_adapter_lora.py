"""Attaching LoRA, and the one-product form against plain peft."""

import copy
import warnings

import peft
import pytest
import torch
import transformers as tf

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.linear import OneProductLinear, active
from tanzim.adapters.lora import attach
from tanzim.adapters.method import trainable
from tanzim.core.errors import ModelError

TINY = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def tiny(dtype=torch.float32):
    torch.manual_seed(1)
    return tf.LlamaForCausalLM(tf.LlamaConfig(**TINY, attention_bias=True)).to(dtype)


def fill(model):
    """Give B values, so that A has a gradient."""
    torch.manual_seed(2)
    for name, value in trainable(model).items():
        if "lora_B" in name:
            value.data.normal_(0, 0.3)


def gradients(model, rows=2):
    ids = torch.randint(0, 61, (rows, 30), generator=torch.Generator().manual_seed(0))
    loss = model(input_ids=ids, labels=ids).loss
    names = trainable(model)
    return loss, dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


def plain(model):
    """Turn a fused copy back into peft's own layers."""
    for module in model.modules():
        if type(module) is OneProductLinear:
            module.__class__ = peft.tuners.lora.layer.Linear
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradients_equal_plain_peft(dtype, tolerance):
    ours = attach(tiny(dtype), LoraConfig(rank=4), seed=0).train()
    if dtype == torch.float64:
        ours = ours.to(dtype)
    fill(ours)
    theirs = plain(copy.deepcopy(ours))
    loss, got = gradients(ours)
    want_loss, want = gradients(theirs)
    torch.testing.assert_close(loss, want_loss, rtol=tolerance, atol=0)
    assert len(got) == 2 * 2 * 7
    for name, value in want.items():
        torch.testing.assert_close(
            got[name], value, rtol=tolerance, atol=tolerance * value.abs().max().item()
        )


def test_few_rows_and_half_precision_take_pefts_own_form(monkeypatch):
    def refuse(*args):
        raise AssertionError("the one-product form ran")

    monkeypatch.setattr("tanzim.adapters.linear._OneProduct.apply", refuse)
    model = attach(tiny(), LoraConfig(rank=4), seed=0).train()
    layer = next(module for module in model.modules() if isinstance(module, OneProductLinear))
    layer(torch.randn(7, 16))
    with pytest.raises(AssertionError):
        layer(torch.randn(40, 16))
    layer.to(torch.bfloat16)(torch.randn(40, 16, dtype=torch.bfloat16))


@pytest.mark.parametrize("change", ["eval", "disabled", "merged", "second", "dropout", "autocast"])
def test_what_one_product_cannot_do_is_left_to_peft(change):
    config = LoraConfig(rank=4, dropout=0.5 if change == "dropout" else 0.0)
    model = attach(tiny(), config, seed=0).train()
    layer = next(module for module in model.modules() if isinstance(module, OneProductLinear))
    assert (active(layer) is None) == (change == "dropout")
    if change == "eval":
        model.eval()
    if change == "disabled":
        layer.enable_adapters(False)
    if change == "merged":
        layer.merge()
    if change == "second":
        model.add_adapter("other", model.peft_config["default"])
        model.base_model.set_adapter(["default", "other"])
    with torch.autocast("cpu", enabled=change == "autocast"):
        assert active(layer) is None


def test_seed_fixes_the_adapter_and_leaves_the_generator_alone():
    def draw(seed):
        return trainable(attach(tiny(), LoraConfig(rank=4), seed=seed))

    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    base = tiny()
    torch.manual_seed(5)
    attach(base, LoraConfig(rank=4), seed=7)
    assert torch.equal(torch.rand(3), want)
    one, two, other = draw(7), draw(7), draw(8)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert all(value.abs().sum() == 0 for name, value in one.items() if "lora_B" in name)


def test_scale_and_targets_stand_in_peft_config():
    model = attach(tiny(), LoraConfig(rank=4, alpha=6, target_modules=["q_proj", "down_proj"]), seed=0)
    settings = model.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.task_type) == (4, 6, "CAUSAL_LM")
    assert {name.split(".")[-4] for name in trainable(model)} == {"q_proj", "down_proj"}
    assert all("lm_head" not in name for name in trainable(attach(tiny(), LoraConfig(), seed=0)))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["q_prj"], "nearest: q_proj"),
        (["c_attn"], "down_proj"),
        ("lm_head", "no linear layer"),
        ([], "all-linear"),
    ],
)
def test_unknown_layers_are_refused(wanted, words):
    with pytest.raises(ModelError, match=words):
        attach(tiny(), LoraConfig(target_modules=wanted), seed=0)


def test_gpt2_trains_as_in_peft():
    torch.manual_seed(0)
    config = tf.GPT2Config(
        vocab_size=61,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=64,
        attn_pdrop=0,
        resid_pdrop=0,
        embd_pdrop=0,
    )
    model = attach(tf.GPT2LMHeadModel(config), LoraConfig(rank=2), seed=0).train()
    fill(model)
    loss, got = gradients(model)
    torch.testing.assert_close(loss, gradients(plain(copy.deepcopy(model)))[0])
    assert got
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.merge_and_unload()
