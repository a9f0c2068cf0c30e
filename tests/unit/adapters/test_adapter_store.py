"""Adapters on disk: what plain peft reads back, and what is refused."""

import json
import warnings

import peft
import pytest
import torch
import transformers as tf

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.folder import read_record
from tanzim.adapters.lora import attach
from tanzim.adapters.method import trainable
from tanzim.adapters.store import load_adapter, save_adapter, save_model
from tanzim.core.errors import ModelError, WrongBaseError

HASH = "a" * 64
IDS = torch.arange(12)[None]


def tiny():
    torch.manual_seed(1)
    config = tf.LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return tf.LlamaForCausalLM(config)


def trained(seed=0, rank=4):
    model = attach(tiny(), LoraConfig(rank=rank), seed=seed)
    for index, value in enumerate(trainable(model).values()):
        value.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed + index))
    return model.eval()


@pytest.fixture
def saved(tmp_path):
    model = trained()
    save_adapter(model, tmp_path / "adapter", base_hash=HASH, base_name="tiny/base")
    with torch.no_grad():
        return tmp_path / "adapter", model(IDS).logits


def test_plain_peft_loads_it(saved):
    folder, want = saved
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=FutureWarning)
        got = peft.PeftModel.from_pretrained(tiny(), str(folder)).eval()(IDS).logits
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_we_load_it_frozen_and_active(saved):
    folder, want = saved
    model = load_adapter(tiny(), folder, name="mine", base_hash=HASH).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, want, rtol=0, atol=0)
    assert model.active_adapter == "mine"
    assert not trainable(model)


def test_two_adapters_side_by_side(saved, tmp_path):
    folder, want = saved
    other = trained(seed=50, rank=2)
    save_adapter(other, tmp_path / "other", base_hash=HASH, base_name="tiny/base")
    model = load_adapter(tiny(), folder, name="one", base_hash=HASH)
    model = load_adapter(model, tmp_path / "other", name="two", base_hash=HASH).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, other(IDS).logits, rtol=0, atol=0)
        model.set_adapter("one", inference_mode=True)
        torch.testing.assert_close(model(IDS).logits, want, rtol=0, atol=0)
    with pytest.raises(ModelError, match="'one' is loaded already"):
        load_adapter(model, folder, name="one", base_hash=HASH)


def test_files_name_the_base_and_repeat_byte_for_byte(saved, tmp_path):
    folder, _ = saved
    assert read_record(folder) == {"base": "tiny/base", "base_hash": HASH}
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny/base"
    save_adapter(trained(), tmp_path / "again", base_hash=HASH, base_name="tiny/base")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_another_base_is_refused(saved):
    with pytest.raises(WrongBaseError, match="tiny/base"):
        load_adapter(tiny(), saved[0], name="x", base_hash="b" * 64)


def test_an_adapter_of_unknown_base_is_refused(saved):
    (saved[0] / "tanzim.json").unlink()
    with pytest.raises(WrongBaseError, match="does not say"):
        load_adapter(tiny(), saved[0], name="x", base_hash=HASH)


def test_bad_folders_are_named(saved, tmp_path):
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        load_adapter(tiny(), tmp_path / "nothing", name="x", base_hash=HASH)
    (saved[0] / "adapter_model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ModelError, match="damaged"):
        load_adapter(tiny(), saved[0], name="x", base_hash=HASH)


def test_an_adapter_of_another_shape_is_refused(saved, tmp_path):
    save_adapter(trained(rank=2), tmp_path / "small", base_hash=HASH, base_name="tiny/base")
    weights = "adapter_model.safetensors"
    (saved[0] / weights).write_bytes((tmp_path / "small" / weights).read_bytes())
    with pytest.raises(ModelError, match="28 tensors do not fit"):
        load_adapter(tiny(), saved[0], name="x", base_hash=HASH)


def test_a_whole_model_is_read_by_transformers(tmp_path):
    model = tiny().eval()
    save_model(model, tmp_path / "model", base_hash=HASH, base_name="tiny/base")
    again = tf.AutoModelForCausalLM.from_pretrained(str(tmp_path / "model")).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)
    assert read_record(tmp_path / "model")["base_hash"] == HASH
    assert not list((tmp_path / "model").glob("*.bin"))
