"""Adapters on disk, made by plain peft on a tiny model: what the repository and `combine` are given."""

import json
import warnings
from pathlib import Path

import peft
import torch
import transformers as tf

HASH = "a" * 64
IDS = torch.arange(12)[None]


def tiny(**more):
    torch.manual_seed(1)
    config = {
        "vocab_size": 61,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    return tf.LlamaForCausalLM(tf.LlamaConfig(**{**config, **more})).eval()


def wrapped(settings, name="default"):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        return peft.get_peft_model(tiny(), settings, adapter_name=name)


def fill(model, seed):
    """Give every adapter weight a random value."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert "lora" in name or "ia3" in name
            value.data.normal_(0, 0.2, generator=generator)


def save(folder: Path, *, seed=0, rank=4, alpha=8, base_hash=HASH, targets=("q_proj", "v_proj"), **more):
    """Write a random LoRA adapter as peft does, with our note of the base beside it."""
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=list(targets), **more
    )
    model = wrapped(settings)
    fill(model, seed)
    model.save_pretrained(str(folder))
    (folder / "tanzim.json").write_text(json.dumps({"base": "tiny/base", "base_hash": base_hash}))
    return folder
