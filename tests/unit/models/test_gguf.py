"""A GGUF file, written with the gguf package from a random model, unpacks to that model."""

import json
import threading

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.families import make
from tanzim.models import gguf as ours
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model, load_tokenizer
from tanzim.models.resolve import resolve

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(weight, heads):
    """The order of rows that llama.cpp keeps for rotary embeddings."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(path, model, tokenizer):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    merges = [" ".join(pair) for pair in _merges(tokenizer)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    special = set(tokenizer.all_special_tokens) | {"<|im_start|>"}
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        parts = name.removesuffix(".weight").split(".", 3)
        if ".layers." in name:
            if "q_proj" in name:
                weight = interleaved(weight, config.num_attention_heads)
            if "k_proj" in name:
                weight = interleaved(weight, config.num_key_value_heads)
            target = f"blk.{parts[2]}.{NAMES[parts[3]]}.weight"
        else:
            short = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
            target = short[name.removesuffix(".weight")] + ".weight"
        writer.add_tensor(target, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _merges(tokenizer):
    return json.loads(tokenizer._tokenizer.to_str())["model"]["merges"]


@torch.no_grad()
def test_a_gguf_file_unpacks_to_its_model(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    tokenizer = make("chatml")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    file = tmp_path / "tiny.gguf"
    write(file, model, tokenizer)
    capfd.readouterr()
    told = []
    base = resolve(ModelConfig(name=str(file)), progress=lambda done, total, note: told.append(note))
    assert capfd.readouterr() == ("", "")
    assert base.source == "gguf"
    assert len(told) == 2
    loaded = load_model(base, dtype=torch.float32, device=torch.device("cpu"))
    ids = torch.tensor([[4, 8, 15, 16, 23, 42]])
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    again = load_tokenizer(base)
    text = "<|im_start|>user\nسلام، می‌خواهم 🙂<|im_end|>"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.chat_template == tokenizer.chat_template
    assert resolve(ModelConfig(name=str(file)), progress=pytest.fail) == base


def test_two_at_once_convert_once(tmp_path, monkeypatch):
    made = []

    def convert(file, folder):
        made.append(file)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(ours, "convert", convert)
    folder = tmp_path / "models" / "one"
    left = tmp_path / "models" / ".one.killed"
    left.mkdir(parents=True)
    threads = [
        threading.Thread(target=ours.unpack_once, args=(folder, lambda scratch: scratch / "x.gguf"))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["one", "one.lock"]
