"""The fast decoder layers against plain peft, transformers' eager attention and cross-entropy."""

import copy

import peft
import pytest
import torch
import transformers as tf
from torch.nn import functional

from tanzim.adapters import fast, layer
from tanzim.adapters.config import LoraConfig
from tanzim.adapters.linear import OneProductLinear
from tanzim.adapters.lora import attach
from tanzim.adapters.method import trainable
from tanzim.models.kernels import attention

LENGTHS = [5, 23, 1, 9]
SMALL = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**SMALL),
    "llama-bias": lambda: tf.LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "llama3-rope": lambda: tf.LlamaConfig(
        **SMALL,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "mistral": lambda: tf.MistralConfig(**SMALL, sliding_window=64),
    "mistral-window": lambda: tf.MistralConfig(**SMALL, sliding_window=8),
    "qwen2": lambda: tf.Qwen2Config(**SMALL),
    "qwen3": lambda: tf.Qwen3Config(**SMALL),
}


def build(name, dtype=torch.float32, **lora):
    """Return a tiny adapted model whose every weight, B included, is random."""
    attention.register()
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention.ATTENTION)
    model = attach(model.to(dtype), LoraConfig(rank=4, **lora), seed=0).to(dtype).train()
    inner = model.base_model.model.model
    inner.norm = torch_norm(inner.norm)
    torch.manual_seed(1)
    for key, value in model.named_parameters():
        value.data = torch.randn_like(value) * (0.3 if "norm" not in key else 0.1) + ("norm" in key)
    return model


def torch_norm(norm):
    """Transformers' norms and eager softmax compute in float32 whatever the model is in; torch's do not."""
    result = torch.nn.RMSNorm(norm.weight.shape[0], norm.variance_epsilon)
    result.weight = norm.weight
    return result


def tokens():
    return torch.randint(3, 101, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))


def packed_loss(model):
    borders = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    logits = model(
        input_ids=tokens(),
        position_ids=torch.cat([torch.arange(length) for length in LENGTHS])[None],
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders,
        max_length_q=max(LENGTHS),
        max_length_k=max(LENGTHS),
        use_cache=False,
    ).logits[0]
    return functional.cross_entropy(logits, tokens()[0].roll(1))


def reference_loss(model):
    """Every document alone, transformers' own attention, peft's own layers, torch's norms."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("sdpa")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "variance_epsilon"):
                setattr(parent, name, torch_norm(child))
            if type(child) is OneProductLinear:
                child.__class__ = peft.tuners.lora.layer.Linear
    parts = tokens().split(LENGTHS, dim=1)
    logits = torch.cat([model(input_ids=part, use_cache=False).logits[0] for part in parts])
    return functional.cross_entropy(logits, tokens()[0].roll(1)), trainable(model)


def compare(model, tolerance):
    want_loss, parameters = reference_loss(model)
    want = torch.autograd.grad(want_loss, list(parameters.values()))
    notes = fast.accelerate(model)
    assert "fast path" in notes[0]
    loss = packed_loss(model)
    got = torch.autograd.grad(loss, list(trainable(model).values()))
    torch.testing.assert_close(loss, want_loss, rtol=tolerance, atol=tolerance)
    for name, ours, theirs in zip(parameters, got, want, strict=True):
        assert theirs.norm() > 0, name
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())
    return notes


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_adapter_gradient_equals_the_reference(name, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(layer, "CHUNK", 16)  # several chunks, the last one short
    # Beyond its window a layer runs transformers' code, float32 norms included.
    compare(build(name, dtype), 2e-4 if name == "mistral-window" else tolerance)


def test_only_some_layers_adapted():
    compare(build("qwen3", torch.float64, target_modules=["v_proj", "up_proj"]), 1e-9)


def test_with_gradient_checkpointing():
    model = build("llama", torch.float64)
    base = model.base_model.model
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    compare(model, 2e-4)  # transformers' own layers run: what is recomputed must not be kept


def test_the_fast_path_runs_for_packed_rows_and_not_beyond_the_window(monkeypatch):
    calls = []
    apply = layer.DecoderLayer.apply
    monkeypatch.setattr(layer.DecoderLayer, "apply", lambda *a: calls.append(1) or apply(*a))
    for name, layers in (("mistral", 2), ("mistral-window", 0)):
        model = build(name)
        fast.accelerate(model)
        calls.clear()
        packed_loss(model)
        assert len(calls) == layers
        calls.clear()
        model(input_ids=tokens())
        assert not calls


def test_generation_is_untouched():
    model = build("qwen3").eval()
    want = model.generate(tokens()[:, :9], max_new_tokens=8, do_sample=False)
    fast.accelerate(model)
    assert not model.training
    assert torch.equal(model.generate(tokens()[:, :9], max_new_tokens=8, do_sample=False), want)


def test_the_trial_leaves_no_trace():
    model = build("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    fast.accelerate(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())
    assert fast.accelerate(model) == []


def test_an_unequal_path_is_taken_back(monkeypatch):
    model = build("llama")
    right = fast.rows.gated
    monkeypatch.setattr(layer.rows, "gated", lambda gate, up: right(gate, up) * 1.001)
    assert "differed by" in fast.accelerate(model)[0]
    assert not any(isinstance(module, fast.FastLayer) for module in model.modules())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("dropout", "needs peft's own form"),
        ("trained", "not a frozen plain linear layer"),
        ("bfloat16", "float32 on the CPU"),
        ("other", "this architecture has no faster ones"),
        ("activation", "gelu"),
    ],
)
def test_what_is_not_recognised_stays_and_says_why(change, words):
    model = build("llama", **({"dropout": 0.1} if change == "dropout" else {}))
    if change == "trained":
        model.requires_grad_(True)
    if change == "bfloat16":
        model.to(torch.bfloat16)
    if change == "activation":
        model.config.hidden_act = "gelu"
    if change == "other":
        model = torch.nn.Linear(2, 2)
    assert words in fast.accelerate(model)[0]
