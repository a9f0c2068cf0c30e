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


def encoder_folder(path, kind=BertForMaskedLM):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    kind(config).save_pretrained(path)
    return path


@torch.no_grad()
def test_a_new_head_is_drawn_from_the_seed_and_the_rest_is_the_bases(tmp_path):
    encoder_folder(tmp_path)

    def load(**settings):
        return load_model(
            base_of(tmp_path), dtype=torch.float32, device=CPU, kind="sequence_classification", **settings
        )

    model, again, other = (load(labels=("no", "yes", "maybe"), seed=seed) for seed in (1, 1, 2))
    # A base of masked words has no pooler: it is new, like the head, and trained and saved with it.
    assert model.new_modules == ("classifier", "bert.pooler")
    assert model.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    stored = load_file(tmp_path / "model.safetensors")
    new = ("classifier.", "bert.pooler.")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        if name.startswith(new):
            assert name.endswith("bias") or not torch.equal(value, other.state_dict()[name])
        else:
            assert torch.equal(value, stored[name])


def test_half_precision_leaves_the_head_whole(tmp_path):
    encoder_folder(tmp_path)
    model = load_model(
        base_of(tmp_path),
        dtype=torch.bfloat16,
        device=CPU,
        kind="token_classification",
        labels=("O", "B-X"),
    )
    wide = {name for name, value in model.named_parameters() if value.dtype == torch.float32}
    assert wide == {"classifier.weight", "classifier.bias"}


def test_an_encoder_without_a_pooler_opens_and_one_without_a_layer_does_not(tmp_path):
    encoder_folder(tmp_path)
    model = load_model(base_of(tmp_path), dtype=torch.float32, device=CPU, kind="encoder")
    assert type(model).__name__ == "BertModel"
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["bert.encoder.layer.0.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for kind in ("encoder", "token_classification"):
        with pytest.raises(ModelError, match=r"1 weights are missing, such as .*output\.dense\.weight"):
            load_model(base_of(tmp_path), dtype=torch.float32, device=CPU, kind=kind, labels=("a", "b"))


def test_a_kind_that_an_architecture_has_not_is_refused(tmp_path):
    encoder_folder(tmp_path)
    with pytest.raises(ModelError, match="not an encoder-decoder model"):
        load_model(base_of(tmp_path), dtype=torch.float32, device=CPU, kind="seq2seq")
