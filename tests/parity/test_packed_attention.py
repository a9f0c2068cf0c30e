"""Packed logits against transformers' own attention on each document alone, and generation with padding."""

import pytest
import torch
import transformers as tf

from tanzim.core.errors import ModelError
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
GPT2 = {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "eos_token_id": 2}
# The window of 8 is shorter than the longest document.
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**SMALL),
    "llama-mha": lambda: tf.LlamaConfig(**{**SMALL, "num_key_value_heads": 4}),
    "qwen2": lambda: tf.Qwen2Config(**SMALL),
    "qwen3": lambda: tf.Qwen3Config(**SMALL),
    "mistral": lambda: tf.MistralConfig(**SMALL, sliding_window=8),
    "gemma": lambda: tf.GemmaConfig(**SMALL),
    "gemma2": lambda: tf.Gemma2Config(
        **SMALL, sliding_window=8, query_pre_attn_scalar=16, attn_logit_softcapping=2.0
    ),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **SMALL,
        sliding_window=8,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "phi3": lambda: tf.Phi3Config(**SMALL),
    "gpt2": lambda: tf.GPT2Config(**GPT2, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0),
}


def models(name: str) -> tuple[tf.PreTrainedModel, tf.PreTrainedModel]:
    """Return the same random weights twice: with our attention, and with transformers' eager one."""
    attention.register()
    torch.manual_seed(3)
    config = CONFIGS[name]()
    eager = tf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in eager.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    ours = tf.AutoModelForCausalLM.from_config(
        CONFIGS[name](), attn_implementation=attention.ATTENTION
    ).eval()
    ours.load_state_dict(eager.state_dict())
    return ours, eager


def packed(lengths: list[int]) -> dict[str, torch.Tensor | int]:
    borders = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_logits_equal_each_document_alone(name):
    ours, eager = models(name)
    ids = torch.randint(3, 101, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = ours(input_ids=ids, use_cache=False, **packed(LENGTHS)).logits[0]
        want = torch.cat([eager(input_ids=part).logits[0] for part in ids.split(LENGTHS, dim=1)])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gemma3"])
def test_packed_gradients_equal_each_document_alone(name):
    ours, eager = models(name)
    ids = torch.randint(3, 101, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
    ours(input_ids=ids, use_cache=False, **packed(LENGTHS)).logits.square().mean().backward()
    want = torch.cat([eager(input_ids=part).logits[0] for part in ids.split(LENGTHS, dim=1)])
    want.square().mean().backward()
    for (name_, got), reference in zip(ours.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(got.grad, reference.grad, rtol=1e-4, atol=1e-5, msg=name_)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "gpt2"])
def test_restarting_positions_alone_keep_documents_apart(name):
    """Without borders transformers finds documents by their positions (in GPT-2 it does not)."""
    ours, eager = models(name)
    ids = torch.randint(3, 101, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = ours(input_ids=ids, use_cache=False, position_ids=packed(LENGTHS)["position_ids"]).logits[0]
        want = torch.cat([eager(input_ids=part).logits[0] for part in ids.split(LENGTHS, dim=1)])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CONFIGS)
def test_padded_logits_equal_eager(name, side):
    ours, eager = models(name)
    lengths = [4, 19, 11]
    mask = torch.zeros(3, 19, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(19 - length, 19)] = 1
    ids = torch.randint(3, 101, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        got = ours(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        want = eager(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_generation_with_left_padding_equals_eager(name):
    ours, eager = models(name)
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[0, :7] = mask[1, :3] = 0
    ids = torch.randint(3, 101, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    settings = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(ids, **settings), eager.generate(ids, **settings))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_mask": torch.ones(1, 1, 9, 9, dtype=torch.bool)}, "mask of its own"),
        ({"cu_seq_lens_k": torch.tensor([0, 5, 9], dtype=torch.int32)}, "differ"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"is_causal": False, "sliding_window": 4}, "looks ahead"),
        ({"attention_mask": attention.LazyMask({"local_size": 3})}, "local attention of 3"),
        ({"rows": 2}, "2 × 9 queries"),
    ],
)
def test_what_would_leak_is_refused(change, words):
    change = dict(change)
    module = torch.nn.Identity()
    module.is_causal = change.pop("is_causal", True)
    query, key, value = torch.randn(3, change.pop("rows", 1), 4, 9, 8).unbind()
    arguments = {"attention_mask": None, **packed([4, 5]), **change}
    with pytest.raises(ModelError, match=words):
        attention.attention(module, query, key, value, **arguments)
