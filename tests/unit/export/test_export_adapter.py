"""Adapter folders for the world outside: plain peft reads them, faults are found, the card says what was."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig

from tanzim.adapters.store import save_model
from tanzim.core.errors import DriftError, WrongBaseError
from tanzim.core.run import RunManifest
from tanzim.export.adapter import complete, plain_adapter, verify_adapter, verify_model
from tanzim.export.card import model_card
from tanzim.export.config import ExportConfig
from tanzim.export.verify import observer

PROMPTS = [[1, 5, 9, 40, 7], [1, 77, 78], [1, *range(30, 130)]]
CONFIG = ExportConfig(prompts=3, new_tokens=8)
TABLE = [
    ["measure", "base", "tuned", "tuned − base", "verdict"],
    ["held-out loss", "2.0000", "1.0000", "-50.0 %", ""],
    ["accuracy", "50.0 [40, 60]", "90.0 [80, 95]", "+40.0 [+30, +50]", "better"],
    ["  Arabic", "50.0 [40, 60]", "51.0 [40, 62]", "+1.0 [-3, +5]", "no measurable change"],
]
MANIFEST = RunManifest(
    "tickets",
    base={"name": "tiny/base", "hash": "ab" * 32, "license": "apache-2.0"},
    data={
        "fingerprints": {"train": "cd" * 32},
        "rejected": {"empty": 3},
        "splits": {"train": {"examples": 1200, "tokens": 9000, "dropped": 2}, "test": {"examples": 0}},
    },
    seed=13,
    result={"steps": 40, "best_loss": 0.51234},
)


def settings(base):
    return {"base": base, "prompts": PROMPTS, "config": CONFIG, "stop_ids": [2], "decode": str}


def watch(model):
    return observer(model, stop_ids=[2], new_tokens=8)


def test_plain_peft_reproduces_what_was_trained(base, adapter, trained) -> None:
    parity = verify_adapter(adapter, reference=watch(trained(base)), **settings(base))
    assert parity.max_logprob_difference < 1e-3
    assert parity.top1_agreement == 1.0
    assert type(plain_adapter(base, adapter)).__module__.startswith("peft.")


def test_a_changed_adapter_file_is_drift(base, adapter, trained) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0] += 0.3
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(DriftError, match="adapter form does not behave"):
        verify_adapter(adapter, reference=watch(trained(base)), **settings(base))


def test_a_changed_scale_is_drift(base, adapter, trained) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "lora_alpha": 16}), encoding="utf-8")
    with pytest.raises(DriftError):
        verify_adapter(adapter, reference=watch(trained(base)), **settings(base))


def test_another_base_is_refused(base, adapter, trained, make_base) -> None:
    with pytest.raises(WrongBaseError):
        verify_adapter(adapter, reference=watch(trained(base)), **settings(make_base(tied=False)))


def test_a_whole_model_is_verified_from_its_files(base, tmp_path, trained) -> None:
    whole = trained(base).merge_and_unload()
    save_model(whole, tmp_path / "model", base_hash=base.hash, base_name=base.name)
    kept = {key: value for key, value in settings(base).items() if key != "base"}
    assert verify_model(tmp_path / "model", reference=watch(whole), **kept).texts_equal == 3
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] *= 1.1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(DriftError, match="model form"):
        verify_model(tmp_path / "model", reference=watch(whole), **kept)


def test_the_folder_is_complete_for_strangers(base, adapter, tokenizer) -> None:
    complete(adapter, base=base, tokenizer=tokenizer, stop_ids=[2, 7], card="# hello\n")
    theirs = AutoTokenizer.from_pretrained(str(adapter))
    talk = [{"role": "user", "content": "سلام، می‌روم"}]
    assert theirs.apply_chat_template(talk, tokenize=False) == tokenizer.apply_chat_template(
        talk, tokenize=False
    )
    assert (adapter / "chat_template.jinja").read_text(encoding="utf-8") == tokenizer.chat_template
    config = GenerationConfig.from_pretrained(str(adapter))
    assert config.eos_token_id == [2, 7]
    assert config.pad_token_id == tokenizer.pad_token_id
    assert (adapter / "README.md").read_text(encoding="utf-8") == "# hello\n"


def test_generation_settings_of_the_base_are_kept(base, adapter, tokenizer) -> None:
    GenerationConfig(do_sample=True, temperature=0.6, eos_token_id=5).save_pretrained(str(base.path))
    complete(adapter, base=base, tokenizer=tokenizer, stop_ids=[2], card="")
    config = GenerationConfig.from_pretrained(str(adapter))
    assert (config.temperature, config.do_sample, config.eos_token_id) == (0.6, True, [2])


def test_card_states_facts_of_the_run() -> None:
    card = model_card(MANIFEST, library="peft", settings={"rank": 16, "learning_rate": 2e-4}, table=TABLE)
    _, header, body = card.split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["base_model"] == "tiny/base"
    assert front["license"] == "apache-2.0"
    assert (front["library_name"], front["pipeline_tag"]) == ("peft", "text-generation")
    assert front["tanzim"]["data_fingerprints"] == {"train": "cd" * 32}
    assert front["tanzim"]["base_hash"] == "ab" * 32
    assert "| accuracy | 50.0 [40, 60] | 90.0 [80, 95] | +40.0 [+30, +50] | better |" in body
    for fact in ("1,200 training examples", "3 rows of the source", "2 overlong examples were dropped"):
        assert fact in body
    assert "No measurable change against the base: Arabic." in body
    assert "best loss: 0.5123" in body
    bare = model_card(RunManifest("new"), library="transformers", settings={})
    assert "It was not evaluated." in bare
    assert "PeftModel" not in bare


def test_a_half_precision_reference_is_not_taken_for_the_trained_one(base, adapter, trained) -> None:
    """The proof is in float32: rounding alone is seen as drift."""
    rounded = trained(base).to(torch.bfloat16)
    with pytest.raises(DriftError):
        verify_adapter(adapter, reference=watch(rounded), **settings(base))
