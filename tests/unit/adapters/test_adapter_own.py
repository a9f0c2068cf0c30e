"""Adapters of our own kinds on disk: equal after loading, not peft's, refused where they do not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from helpers.own_adapters import KINDS, changed_by_hand, random_adapter
from tanzim.adapters.config import LoraConfig
from tanzim.adapters.folder import own_type
from tanzim.adapters.lora import attach
from tanzim.adapters.own import standing
from tanzim.adapters.store import load_adapter, read_own
from tanzim.core.errors import ModelError, WrongBaseError
from tanzim.core.files import read_json, write_json

HASH = "c" * 64
IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))


def llama(**more: Any) -> Any:
    torch.manual_seed(1)
    config = tf.LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        **more,
    )
    return tf.LlamaForCausalLM(config).eval()


def gpt2() -> Any:
    torch.manual_seed(1)
    config = tf.GPT2Config(
        vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=32, initializer_range=0.2
    )
    return tf.GPT2LMHeadModel(config).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("make", [llama, gpt2, lambda: llama(attention_bias=True)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_loaded_computes_as_what_was_saved(kind: str, make: Any, tmp_path: Path) -> None:
    method = random_adapter(make(), kind, tmp_path / "a", HASH)
    loaded = load_adapter(make(), tmp_path / "a", name="a", base_hash=HASH)
    assert own_type(tmp_path / "a") == kind
    torch.testing.assert_close(logits(loaded), logits(method.model), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(loaded), logits(changed_by_hand(make(), kind, tmp_path / "a")))
    assert float((logits(loaded) - logits(make())).abs().max()) > 0.1


@pytest.mark.parametrize("kind", list(KINDS))
def test_changes_come_and_go_to_the_bit(kind: str, tmp_path: Path) -> None:
    random_adapter(llama(), kind, tmp_path / "a", HASH)
    model = llama()
    before, plain = copy.deepcopy(model.state_dict()), logits(model)
    changes = read_own(tmp_path / "a", base_hash=HASH).changes(model)
    assert torch.equal(logits(model), plain)
    with standing(changes):
        assert not torch.equal(logits(model), plain)
    assert torch.equal(logits(model), plain)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_folder_names_its_kind_and_is_no_peft(kind: str, tmp_path: Path) -> None:
    random_adapter(llama(), kind, tmp_path / "a", HASH)
    record = read_json(tmp_path / "a" / "tanzim.json")
    assert record["base_hash"] == HASH
    assert record["method"].items() >= KINDS[kind].items()
    facts = read_json(tmp_path / "a" / "adapter_config.json")
    assert facts["format"] == "tanzim"
    assert facts["base_model_name_or_path"] == "tiny"
    assert "peft_type" not in facts
    with pytest.raises((KeyError, ValueError, TypeError)):
        peft.PeftConfig.from_pretrained(str(tmp_path / "a"))


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_does_not_fit_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    random_adapter(llama(), kind, folder, HASH)
    with pytest.raises(WrongBaseError, match="this adapter is for 'tiny'"):
        load_adapter(llama(), folder, name="a", base_hash="d" * 64)
    with pytest.raises(ModelError, match="carries another adapter"):
        load_adapter(attach(llama(), LoraConfig(rank=2), seed=0), folder, name="a", base_hash=HASH)
    with pytest.raises(ModelError, match="tensors do not fit"):
        load_adapter(gpt2(), folder, name="a", base_hash=HASH)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    with pytest.raises(ModelError, match=f"1 tensors do not fit, the first: {name} is None"):
        load_adapter(llama(), folder, name="a", base_hash=HASH)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="damaged"):
        load_adapter(llama(), folder, name="a", base_hash=HASH)


def test_places_outside_the_matrix_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    random_adapter(llama(), "spiel", folder, HASH)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    next(value for name, value in tensors.items() if name.endswith("places"))[3] = 10**6
    save_file(tensors, path)
    with pytest.raises(ModelError, match="lie outside its"):
        load_adapter(llama(), folder, name="a", base_hash=HASH)


def test_settings_that_lack_a_key_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    random_adapter(llama(), "bottleneck", folder, HASH)
    record = read_json(folder / "tanzim.json")
    del record["method"]["size"]
    write_json(folder / "tanzim.json", record)
    with pytest.raises(ModelError, match="settings lack 'size'"):
        load_adapter(llama(), folder, name="a", base_hash=HASH)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_new_head_is_trained_and_kept(kind: str, tmp_path: Path) -> None:
    def classifier(seed: int) -> Any:
        model = llama(pad_token_id=0)
        headed = tf.LlamaForSequenceClassification(model.config)
        headed.model = model.model
        torch.manual_seed(seed)
        torch.nn.init.normal_(headed.score.weight)
        headed.new_modules = ("score",)
        return headed

    method = random_adapter(classifier(1), kind, tmp_path / "a", HASH)
    assert "score.weight" in method.parameters
    assert "score.weight" in load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert not any("score.delta" in name for name in method.parameters)
    loaded = load_adapter(classifier(2), tmp_path / "a", name="a", base_hash=HASH)
    torch.testing.assert_close(logits(loaded), logits(method.model), rtol=0, atol=1e-6)
