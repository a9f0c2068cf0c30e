"""Merged models: against peft's own merge, the files on disk, and injected faults."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tanzim.adapters.folder import RECORD
from tanzim.adapters.store import save_adapter
from tanzim.core.errors import DriftError, ModelError, WrongBaseError
from tanzim.core.files import read_json
from tanzim.export import merge as merging
from tanzim.export.config import ExportConfig
from tanzim.export.merge import merge, stored
from tanzim.models.resolve import Base

PROMPTS = [[1, 5, 9, 40, 7], [1, 77, 78], [1, *range(30, 130)]]
CONFIG = ExportConfig(prompts=3, new_tokens=8)


def run(base: Base, adapter: Path, out: Path, tokenizer, config: ExportConfig = CONFIG):
    return merge(base, adapter, out, config, PROMPTS, tokenizer=tokenizer, stop_ids=[2], card="# card\n")


def test_merged_folder_stands_alone_and_equals_base_plus_adapter(base, adapter, trained, tokenizer, tmp_path):
    parity = run(base, adapter, tmp_path / "merged", tokenizer)
    assert parity.max_logprob_difference < 1e-3
    assert (parity.prompts, parity.texts_equal, parity.top1_agreement) == (3, 3, 1.0)
    assert parity.details["changed"] == 2 * 7  # q k v o gate up down, in two layers
    assert parity.details["tied_embeddings"] is True
    assert parity.details["dtype"] == "float32"
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    ids = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        expected, got = trained(base)(ids).logits, model(ids).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)
    files = {file.name for file in (tmp_path / "merged").iterdir()}
    assert files >= {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tanzim.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert AutoTokenizer.from_pretrained(str(tmp_path / "merged")).chat_template == tokenizer.chat_template
    assert read_json(tmp_path / "merged" / "generation_config.json")["eos_token_id"] == [2]
    assert read_json(tmp_path / "merged" / "tanzim.json")["base_hash"] == base.hash
    assert "_attn_implementation" not in read_json(tmp_path / "merged" / "config.json")


def test_weights_equal_w_plus_scaled_b_a(base, adapter, tokenizer, tmp_path):
    run(base, adapter, tmp_path / "merged", tokenizer)
    before, after = (load_file(path / "model.safetensors") for path in (base.path, tmp_path / "merged"))
    deltas = load_file(adapter / "adapter_model.safetensors")
    assert "lm_head.weight" not in after
    for name, weight in before.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{stem}.lora_A.weight" in deltas:
            expected = weight + 32 / 4 * deltas[f"{stem}.lora_B.weight"] @ deltas[f"{stem}.lora_A.weight"]
        torch.testing.assert_close(after[name], expected, rtol=0, atol=1e-5)


def test_untied_base(make_base, trained, tokenizer, tmp_path):
    base = make_base(tied=False)
    save_adapter(trained(base), tmp_path / "adapter", base_hash=base.hash, base_name=base.name)
    parity = run(base, tmp_path / "adapter", tmp_path / "merged", tokenizer)
    assert parity.details["tied_embeddings"] is False
    with safe_open(tmp_path / "merged" / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" in file.keys()  # noqa: SIM118


@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`", "ignore:`is_gradient_checkpointing`"
)
def test_an_adapted_head_of_a_tied_base_is_untied(base, tokenizer, tmp_path):
    """Another tool's adapter may change lm_head; merged into the shared weight it would change the inputs."""
    plain = AutoModelForCausalLM.from_pretrained(str(base.path))
    config = peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(plain, config)
    for name, value in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.1)
    folder = tmp_path / "adapter"
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / RECORD).write_text(json.dumps({"base": base.name, "base_hash": base.hash}), encoding="utf-8")
    parity = run(base, folder, tmp_path / "merged", tokenizer)
    assert parity.details["tied_embeddings"] is False
    after = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(base.path / "model.safetensors")
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert not torch.equal(after["lm_head.weight"], before["model.embed_tokens.weight"])


@pytest.mark.parametrize("fault", ["perturbed", "forgotten", "elsewhere"])
def test_an_injected_fault_is_drift_and_leaves_no_folder(
    base, adapter, tokenizer, tmp_path, monkeypatch, fault
):
    honest = merging._write

    def write(base, adapter, folder, dtype):
        targets = honest(base, adapter, folder, dtype)
        weights = load_file(folder / "model.safetensors")
        if fault == "perturbed":
            weights["model.layers.1.mlp.down_proj.weight"][0] += 0.5
        elif fault == "forgotten":
            name = "model.layers.0.self_attn.q_proj.weight"
            weights[name] = load_file(base.path / "model.safetensors")[name]
        else:
            weights["model.norm.weight"] += 1e-6
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return targets

    monkeypatch.setattr(merging, "_write", write)
    message = "does not behave" if fault == "perturbed" else "the merge changed"
    with pytest.raises(DriftError, match=message):
        run(base, adapter, tmp_path / "merged", tokenizer)
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob(".merged*"))


def test_auto_precision_is_the_base_s_unless_it_rounds_too_much_away(make_base, trained, tokenizer, tmp_path):
    base = make_base(dtype=torch.bfloat16)
    assert stored(base.path) == "bfloat16"
    save_adapter(trained(base), tmp_path / "adapter", base_hash=base.hash, base_name=base.name)
    parity = run(base, tmp_path / "adapter", tmp_path / "wide", tokenizer)
    assert parity.details["dtype"] == "float32"
    assert "tolerance" in parity.details["rejected"]["bfloat16"]
    assert stored(tmp_path / "wide") == "float32"
    loose = ExportConfig(prompts=1, new_tokens=1, tolerance=10)
    parity = run(base, tmp_path / "adapter", tmp_path / "narrow", tokenizer, loose)
    assert parity.details["dtype"] == stored(tmp_path / "narrow") == "bfloat16"
    strict = ExportConfig(prompts=3, new_tokens=8, dtype="bfloat16")
    with pytest.raises(DriftError, match="tolerance"):
        run(base, tmp_path / "adapter", tmp_path / "refused", tokenizer, strict)


def test_an_untrained_adapter_and_another_base_are_refused(
    base, adapter, trained, make_base, tokenizer, tmp_path
):
    model = trained(base)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data.zero_()
    save_adapter(model, tmp_path / "inert", base_hash=base.hash, base_name=base.name)
    with pytest.raises(ModelError, match="changes nothing"):
        run(base, tmp_path / "inert", tmp_path / "merged", tokenizer)
    other = make_base(tied=False)
    with pytest.raises(WrongBaseError):
        run(other, adapter, tmp_path / "merged", tokenizer)
