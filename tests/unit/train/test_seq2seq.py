"""The seq2seq objective against transformers' own loss, and a tiny T5 that learns to reverse."""

import random

import pytest
import torch
from tiny_train import VOCABULARY, fit, lines, store, tiny_method
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from tanzim.core.errors import TrainError
from tanzim.core.records import Provenance, Rendered
from tanzim.train.batches import collate
from tanzim.train.objectives.seq2seq import Seq2Seq

END = 1


def tiny_t5(dtype=torch.float32, **changes):
    """Make the same random T5 every time."""
    settings = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }
    torch.manual_seed(7)
    return T5ForConditionalGeneration(T5Config(**(settings | changes))).to(dtype)


def tiny_bart(dtype=torch.float32):
    """Make a random BART, whose positions are learnt and few."""
    torch.manual_seed(7)
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config).to(dtype)


def pairs(count, seed=0, longest=5):
    """Make sources of a few tokens and the same tokens reversed as targets."""
    draw, made = random.Random(seed), []
    for row in range(1, count + 1):
        source = tuple(draw.randrange(3, 12) for _ in range(draw.randint(2, longest)))
        target = (*reversed(source), END)
        weights = (0.0,) * (len(source) + 1) + (1.0,) * len(target)
        made.append(Rendered((*source, END, *target), weights, (), Provenance(f"pairs-{seed}.jsonl", row)))
    return made


def own_loss(model, rendered):
    """Sum the losses of the pairs, each alone, as transformers computes them from its labels."""
    total = 0.0
    for one in rendered:
        at = one.weights.index(1.0)
        labels = torch.tensor([one.ids[at:]])
        total = total + model(input_ids=torch.tensor([one.ids[:at]]), labels=labels).loss * labels.numel()
    return total


@pytest.mark.parametrize("make", [tiny_t5, tiny_bart])
def test_loss_and_gradients_equal_the_models_own(make, tmp_path):
    model, rendered = make(torch.float64), pairs(7)
    documents = list(store(tmp_path / "pairs.arrow", rendered))
    objective = Seq2Seq(model)
    assert "padded" in objective.choose(documents)
    parameters = [value for value in model.parameters() if value.requires_grad]
    want = own_loss(model, rendered)
    want_grads = torch.autograd.grad(want, parameters, allow_unused=True)
    got = objective.loss_sum(collate(documents), scale=0.25) * 4
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    for ours, theirs in zip(torch.autograd.grad(got, parameters, allow_unused=True), want_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_three_steps_equal_plain_torch(tmp_path):
    rendered, reference = pairs(12), tiny_t5()
    trained = tiny_method(tiny_t5(), type="full")
    fit(
        tmp_path,
        prepared=trained,
        train_documents=rendered,
        validation_documents=[],
        objective={"type": "seq2seq"},
        method={"type": "full"},
        tokens_per_step=10_000,
        tokens_per_pass=40,
        epochs=3,
        schedule="constant",
        warmup_steps=0,
        learning_rate=1e-3,
        max_grad_norm=1e9,
    )
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=0.0)
    tokens = sum(sum(one.weights) for one in rendered)
    for _ in range(3):
        optimizer.zero_grad()
        (own_loss(reference, rendered) / tokens).backward()
        optimizer.step()
    for (name, ours), theirs in zip(trained.model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5, msg=name)


def test_a_tiny_t5_learns_to_reverse(tmp_path):
    method, held_out = tiny_method(tiny_t5(), type="full"), pairs(20, seed=2, longest=2)
    fit(
        tmp_path,
        prepared=method,
        train_documents=pairs(300, longest=2),
        validation_documents=[],
        objective={"type": "seq2seq"},
        method={"type": "full"},
        epochs=16,
        tokens_per_step=256,
        tokens_per_pass=256,
    )
    tokens = sum(sum(one.weights) for one in held_out)
    with torch.no_grad():
        # Without a look at the source the tokens of a target would cost log 9 = 2.2 each.
        assert own_loss(method.model, held_out) / tokens < 0.5


def test_a_resumed_run_ends_bit_equal(tmp_path):
    settings = {
        "train_documents": pairs(60),
        "validation_documents": pairs(20, seed=1),
        "objective": {"type": "seq2seq"},
        "method": {"type": "full"},
        "max_steps": 10,
        "epochs": 10,
        "save_steps": 5,
    }
    whole = tiny_method(tiny_t5(), type="full")
    fit(tmp_path / "whole", prepared=whole, **settings)

    class Stopped(Exception):
        pass

    def stop(line):
        if line["kind"] == "train" and line["step"] == 7:
            raise Stopped

    with pytest.raises(Stopped):
        fit(tmp_path / "cut", prepared=tiny_method(tiny_t5(), type="full"), on_line=stop, **settings)
    resumed = tiny_method(tiny_t5(), type="full")
    fit(tmp_path / "cut", prepared=resumed, **settings)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "whole", "train")
    for name, value in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], value)


def test_lora_on_an_encoder_decoder_trains_the_adapter_alone(tmp_path):
    method = tiny_method(tiny_t5(), type="lora", rank=4)
    before = {name: value.clone() for name, value in method.model.named_parameters()}
    fit(
        tmp_path,
        prepared=method,
        train_documents=pairs(40),
        validation_documents=[],
        objective={"type": "seq2seq"},
        max_steps=2,
    )
    changed = {
        name for name, value in method.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed
    assert all("lora_" in name for name in changed)


def test_more_tokens_than_positions_are_refused_by_row(tmp_path):
    with pytest.raises(TrainError, match="64 positions") as refused:
        fit(
            tmp_path,
            prepared=tiny_method(tiny_bart(), type="full"),
            train_documents=[*pairs(3), *pairs(1, seed=3, longest=5), long_pair()],
            validation_documents=[],
            objective={"type": "seq2seq"},
            method={"type": "full"},
        )
    assert refused.value.where == "long.jsonl, row 9"


def long_pair():
    """Make a pair whose source has 80 tokens."""
    return Rendered((5,) * 80 + (6, END), (0.0,) * 80 + (1.0, 1.0), (), Provenance("long.jsonl", 9))
