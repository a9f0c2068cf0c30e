"""Opening a base: equal to transformers' own loading, and clear where it cannot be opened."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from helpers.families import make
from tanzim.core.errors import ModelError
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer, pick_device, pick_dtype
from tanzim.models.resolve import Base, resolve

CPU = torch.device("cpu")


def base_of(path):
    return Base("tiny", "local", path, "0" * 64, None)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    tokenizer = make("llama3")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def test_the_model_is_the_one_in_the_folder(folder, capfd):
    model = load_model(base_of(folder), dtype=torch.float32, device=CPU)
    assert capfd.readouterr() == ("", "")
    assert model.config._attn_implementation == "tanzim"
    assert not model.training
    other = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    ids = torch.tensor([[5, 9, 13, 40, 2]])
    torch.testing.assert_close(model(ids).logits, other(ids).logits)
    half = load_model(base_of(folder), dtype=torch.bfloat16, device=CPU)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_the_tokenizer_is_the_one_in_the_folder(folder):
    tokenizer = load_tokenizer(base_of(folder))
    assert tokenizer("سلام <|eot_id|>").input_ids == make("llama3")("سلام <|eot_id|>").input_ids
    assert tokenizer.pad_token == tokenizer.eos_token


def test_no_causal_model(tmp_path):
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"not a causal language model \(it is BertForMaskedLM"):
        load_model(base_of(tmp_path), dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("shape", [None, (3, 3)])
def test_weights_that_do_not_belong(folder, shape):
    file, name = folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(file)
    del tensors[name]
    if shape:
        tensors[name] = torch.zeros(shape)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load_model(base_of(folder), dtype=torch.float32, device=CPU)
    assert name in caught.value.what


def test_a_folder_without_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(base_of(folder))


def test_device_and_precision():
    assert pick_device(ModelConfig(device="cpu")) == CPU
    assert pick_dtype(ModelConfig(), CPU) == torch.float32
    assert pick_dtype(ModelConfig(dtype="bfloat16"), CPU) == torch.bfloat16
    if not torch.cuda.is_available():
        assert pick_device(ModelConfig()) == CPU
        with pytest.raises(ModelError, match="finds no such device"):
            pick_device(ModelConfig(device="cuda"))


@pytest.mark.slow
@torch.no_grad()
def test_the_embedded_model_knows_paris(embedded_base):
    assert embedded_base.hash == "144c4f6518e28433a9993f00051d7758725abb4934905beaa3006046436e0ce5"
    assert resolve(ModelConfig()) == embedded_base
    tokenizer = load_tokenizer(embedded_base)
    model = load_model(embedded_base, dtype=torch.float32, device=CPU)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(ids)
