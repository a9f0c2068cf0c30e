"""The lean forward pass over pages: token by token what transformers and peft generate."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers.adapters import generated, save_changed
from helpers.passes import count_tokens
from tanzim.core.errors import ModelError
from tanzim.infer.engine import Engine, Request
from tanzim.infer.lean import LeanModel, differs, unfit
from tanzim.infer.mixed import Mix
from tanzim.infer.paged_scheduler import PagedScheduler
from tanzim.infer.sequence import Sequence

HASH = "0" * 64
SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama, odd heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=24)),
    "llama, biases and tied": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    ),
    "llama 3": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        })
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen 2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen 3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32)),
}  # fmt: skip


def make_model(family: str) -> Any:
    torch.manual_seed(2)
    model = FAMILIES[family]().eval()
    for parameter in model.parameters():
        mean, std = (0.0, 0.2) if parameter.dim() > 1 else (1.0, 0.2)
        torch.nn.init.normal_(parameter, mean, std)
    return model


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def make_engine(model: Any, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(copy.deepcopy(model), tokenizer, stop_ids=[], base_hash=HASH)


def run(scheduler: Any, arrivals: list[Sequence], draw: random.Random) -> int:
    """Run all to their ends, some arriving while others are under way; return the number of steps."""
    arrivals, steps = list(arrivals), 0
    while scheduler.busy or arrivals:
        for _ in range(draw.choice([0, 0, 1, 3])):
            if arrivals:
                scheduler.add(arrivals.pop(0))
        if scheduler.busy:
            scheduler.step()
            steps += 1
    return steps


@pytest.mark.parametrize("family", list(FAMILIES))
def test_greedy_answers_equal_transformers_generate(
    family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model(family)
    kinds = {"one": {"type": "lora", "rank": 4}, "two": {"type": "rslora", "rank": 9}}
    kinds |= {"three": {"type": "dora", "rank": 2}}
    folders = {name: save_changed(model, tmp_path / name, len(name), **kind) for name, kind in kinds.items()}
    engine = make_engine(model, tokenizer)
    for name, folder in folders.items():
        engine.add_adapter(name, folder)
    scheduler = engine.server(5)
    assert isinstance(scheduler, PagedScheduler)
    draw = random.Random(family)
    requests = [
        Request(prompt(i % 5, draw.choice([1, 7, 16, 17, 45, 120])), draw.choice([None, *folders]),
                max_new_tokens=draw.randint(1, 40))
        for i in range(14)
    ]  # fmt: skip
    sequences = [engine.sequence(request) for request in requests]
    run(scheduler, sequences, draw)
    for request, sequence in zip(requests, sequences, strict=True):
        folder = None if request.adapter is None else folders[request.adapter]
        wanted = generated(model, folder, request.prompt_ids, request.max_new_tokens)
        assert sequence.completion().ids == wanted


@pytest.mark.parametrize("family", list(FAMILIES))
def test_logits_of_prompts_and_single_tokens_equal_the_models(family: str) -> None:
    model = make_model(family)
    assert unfit(model) is None
    assert differs(LeanModel(model, Mix(model)), model) is None


def test_a_wrong_forward_pass_is_noticed(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("llama")
    lean = LeanModel(model, Mix(model))
    model.model.layers[1].self_attn.scaling *= 1.01
    assert "differ" in str(differs(lean, model))


def test_log_probabilities_equal_those_of_a_full_pass(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("qwen 3")
    engine = make_engine(model, tokenizer)
    sequences = [
        engine.sequence(Request(prompt(i, 5 + 30 * i), max_new_tokens=9, logprobs=2, temperature=0.8, seed=i))
        for i in range(4)
    ]
    run(engine.server(3), sequences, random.Random(1))
    for sequence in sequences:
        answer = sequence.completion()
        ids = torch.tensor([sequence.request.prompt_ids + list(answer.ids)])
        with torch.no_grad():
            wanted_TV = model(input_ids=ids).logits[0, -len(answer.ids) - 1 : -1].log_softmax(-1)
        assert answer.logprobs is not None
        found = [entry.logprob for entry in answer.logprobs]
        wanted = wanted_TV[range(len(answer.ids)), answer.ids]
        torch.testing.assert_close(torch.tensor(found), wanted, rtol=0, atol=1e-4)


def test_a_prompt_that_begins_alike_is_computed_from_where_it_differs(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model("llama")
    folder = save_changed(model, tmp_path / "a", 1, type="lora", rank=4)
    engine = make_engine(model, tokenizer)
    engine.add_adapter("a", folder)
    scheduler = engine.server(4)
    assert isinstance(scheduler, PagedScheduler)
    seen = count_tokens(scheduler)
    shared = prompt(1, 50)  # three pages, and a bit
    asked = [
        (shared + prompt(2, 9), None, "", 59), (shared + prompt(3, 5), None, "", 55 - 48),
        (shared + prompt(3, 5), "a", "", 55), (shared + prompt(4, 3), "a", "", 53 - 48),
        (shared[:48], None, "", 48 - 32),  # the last token is always computed
        (shared + prompt(2, 9), None, "others", 59), (shared + prompt(3, 5), None, "others", 55 - 48),
    ]  # fmt: skip
    for ids, name, realm, computed in asked:
        sequence = engine.sequence(Request(ids, name, realm, max_new_tokens=6))
        scheduler.add(sequence)
        scheduler.step()
        assert seen[-1] == computed
        while scheduler.busy:
            scheduler.step()
        wanted = generated(model, None if name is None else folder, ids, 6)
        assert sequence.completion().ids == wanted


def test_pages_are_given_back_and_old_ones_forgotten(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("llama")
    engine = make_engine(model, tokenizer)
    scheduler = engine.server(4, cache_tokens=160)
    assert isinstance(scheduler, PagedScheduler)
    draw = random.Random(3)
    requests = [Request(prompt(i % 7, 20 + 9 * (i % 7)), max_new_tokens=12) for i in range(30)]
    sequences = [engine.sequence(request) for request in requests]
    run(scheduler, sequences, draw)
    for request, sequence in zip(requests, sequences, strict=True):
        assert sequence.completion().ids == generated(model, None, request.prompt_ids, 12)
    assert scheduler._pages.available == scheduler._pages.count == 10
    with pytest.raises(ModelError, match="cache holds 160"):
        scheduler.add(engine.sequence(Request(prompt(1, 150), max_new_tokens=20)))


def test_cancelled_sequences_leave_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = make_engine(make_model("llama"), tokenizer)
    scheduler = engine.server(2)
    assert isinstance(scheduler, PagedScheduler)
    sequences = [engine.sequence(Request(prompt(i, 30), max_new_tokens=20)) for i in range(4)]
    for sequence in sequences:
        scheduler.add(sequence)
    scheduler.step()
    for sequence in sequences:
        scheduler.cancel(sequence)
    assert not scheduler.busy
    assert scheduler._pages.available == scheduler._pages.count


def test_a_long_prompt_does_not_stop_those_that_decode(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tanzim.infer.paged_scheduler.CHUNK", 20)
    model = make_model("llama")
    engine = make_engine(model, tokenizer)
    scheduler = engine.server(4)
    short, long = (
        engine.sequence(Request(prompt(1, 5), max_new_tokens=30)),
        engine.sequence(Request(prompt(2, 190), max_new_tokens=5)),
    )
    scheduler.add(short)
    scheduler.step()
    scheduler.add(long)
    while not long.ids:
        before = len(short.ids)
        scheduler.step()
        assert len(short.ids) == before + 1  # one token at every piece of the other's prompt
    assert len(short.ids) == 1 + 10
    while scheduler.busy:
        scheduler.step()
    for sequence in (short, long):
        request = sequence.request
        wanted = generated(model, None, request.prompt_ids, request.max_new_tokens)
        assert sequence.completion().ids == wanted


def test_32_streams_over_16_adapters_take_80_passes(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model("llama")
    engine = make_engine(model, tokenizer)
    for i in range(16):
        engine.add_adapter(f"a{i}", save_changed(model, tmp_path / f"a{i}", i, type="lora", rank=2))
    scheduler = engine.server(32)
    assert isinstance(scheduler, PagedScheduler)
    seen = count_tokens(scheduler)
    sequences = [
        engine.sequence(Request(prompt(i, 5 + i), f"a{i % 16}", max_new_tokens=64)) for i in range(32)
    ]
    arrivals, first = list(sequences), []
    while scheduler.busy or arrivals:
        for _ in range(3):
            if arrivals:
                scheduler.add(arrivals.pop(0))
        first += [len(seen) for sequence in scheduler.step() if len(sequence.ids) == 1]
    assert len(seen) <= 80  # all passes, those of prompts included
    assert first[0] == 1
    assert all(len(sequence.completion().ids) == 64 for sequence in sequences)


def test_kinds_that_do_not_mix_take_turns_with_the_others(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model("llama")
    kinds: dict[str, Any] = {"one": {"type": "lora", "rank": 4}, "two": {"type": "ia3"}}
    folders = {name: save_changed(model, tmp_path / name, 3, **kind) for name, kind in kinds.items()}
    engine = make_engine(model, tokenizer)
    for name, folder in folders.items():
        engine.add_adapter(name, folder)
    scheduler = engine.server(4)
    order = ["one", "two", None, "two", "two", "one"]
    sequences = [
        engine.sequence(Request(prompt(i, 9), name, max_new_tokens=5)) for i, name in enumerate(order)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    ended: list[int] = []
    while scheduler.busy:
        ended += [sequences.index(s) for s in scheduler.step() if s.finish_reason is not None]
    assert ended == [0, 1, 2, 3, 4, 5]
    for sequence, name in zip(sequences, order, strict=True):
        folder = None if name is None else folders[name]
        assert sequence.completion().ids == generated(model, folder, sequence.request.prompt_ids, 5)


def test_changed_weights_are_read_anew(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("llama")
    engine = Engine(model, tokenizer, stop_ids=[], base_hash=HASH)
    for _ in range(2):
        sequence = engine.sequence(Request(prompt(1, 9), max_new_tokens=6))
        run(engine.server(2), [sequence], random.Random(0))
        assert sequence.completion().ids == generated(model, None, prompt(1, 9), 6)
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.neg_()


def test_other_models_keep_their_own_forward_pass(tokenizer: PreTrainedTokenizerFast) -> None:
    windowed = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)).eval()
    assert "window" in str(unfit(windowed))
    assert not isinstance(make_engine(windowed, tokenizer).server(2), PagedScheduler)


def test_the_cache_takes_memory_as_it_is_written() -> None:
    import psutil

    model = make_model("llama")
    lean, process = LeanModel(model, Mix(model)), psutil.Process()
    before = process.memory_info().rss
    cache = lean.cache(2_000_000)
    assert cache.pages * 16 * lean.bytes_per_token >= 1_000_000_000
    assert process.memory_info().rss - before < 100_000_000
