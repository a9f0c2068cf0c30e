"""Different adapters in one batch: as each computes alone, in few passes, whoever arrives when."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import generated, save_changed
from tanzim.infer.engine import Engine, Request
from tanzim.infer.lowrank import LowRank
from tanzim.infer.mixed import Mix

HASH = "0" * 64


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def make(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(copy.deepcopy(model), tokenizer, stop_ids=[], base_hash=HASH)


@pytest.fixture
def sixteen(model: LlamaForCausalLM, tmp_path: Path) -> dict[str, Path]:
    """Sixteen adapters of several kinds, ranks and targets."""
    kinds: list[dict[str, Any]] = [
        {"type": "lora", "rank": 4},
        {"type": "rslora", "rank": 12},
        {"type": "lora", "rank": 2, "target_modules": ["q_proj", "down_proj"]},
        {"type": "dora", "rank": 3},
    ]
    return {f"a{i}": save_changed(model, tmp_path / f"a{i}", i, **kinds[i % 4]) for i in range(16)}


def count_passes(engine: Engine) -> list[tuple[int, ...]]:
    """Return a list that grows by the shape of the tokens of every forward pass of the model."""
    seen: list[tuple[int, ...]] = []
    inner = engine._weights.bare
    inner.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_32_streams_over_16_adapters_take_80_decode_passes(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, sixteen: dict[str, Path]
) -> None:
    engine = make(model, tokenizer)
    for name, folder in sixteen.items():
        engine.add_adapter(name, folder)
    passes = count_passes(engine)
    scheduler = engine.scheduler(32)
    sequences = [
        engine.sequence(Request(prompt(i, 5 + i), f"a{i % 16}", max_new_tokens=64)) for i in range(32)
    ]
    first: list[int] = []
    arrivals = iter(sequences)
    while scheduler.busy or len(first) < 32:
        for _ in range(3):  # they come one after the other, while others are running
            sequence = next(arrivals, None)
            if sequence is not None:
                scheduler.add(sequence)
        for sequence in scheduler.step():
            if len(sequence.ids) == 1:
                assert sequence.take() is not None or sequence.ids
                first.append(len(passes))
    decodes = sum(shape[-1] == 1 for shape in passes)
    assert decodes <= 80
    assert first[0] == 1  # the first token left after the first of all passes
    assert all(len(sequence.completion().ids) == 64 for sequence in sequences)


def test_every_row_is_what_plain_peft_generates(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, sixteen: dict[str, Path]
) -> None:
    engine = make(model, tokenizer)
    for name, folder in sixteen.items():
        engine.add_adapter(name, folder)
    draw = random.Random(5)
    names = [None, *sixteen, None, "a3", "a3"]
    draw.shuffle(names)
    requests = [Request(prompt(i, draw.randint(1, 40)), name, max_new_tokens=draw.randint(1, 12))
                for i, name in enumerate(names)]  # fmt: skip
    for answer, request in zip(engine.generate(requests, max_batch=7), requests, strict=True):
        folder = None if request.adapter is None else sixteen[request.adapter]
        assert answer.ids == generated(model, folder, request.prompt_ids, request.max_new_tokens)


def test_kinds_that_do_not_mix_wait_their_turn_and_no_longer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    kinds = {"one": {"type": "lora", "rank": 4}, "two": {"type": "ia3"}, "three": {"type": "lora", "rank": 2}}
    folders = {name: save_changed(model, tmp_path / name, 3, **kind) for name, kind in kinds.items()}
    engine = make(model, tokenizer)
    for name, folder in folders.items():
        engine.add_adapter(name, folder)
    scheduler = engine.scheduler(4)
    order = ["one", "two", None, "three", "two"]
    sequences = [
        engine.sequence(Request(prompt(i, 9), name, max_new_tokens=5)) for i, name in enumerate(order)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    ended: list[int] = []
    while scheduler.busy:
        ended += [sequences.index(s) for s in scheduler.step() if s.finish_reason is not None]
    assert ended == [0, 1, 2, 3, 4]
    for sequence, name in zip(sequences, order, strict=True):
        folder = None if name is None else folders[name]
        assert sequence.completion().ids == generated(model, folder, sequence.request.prompt_ids, 5)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_products_beside_the_base_equal_the_formula(seed: int, compiled: bool) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = torch.nn.ModuleDict({"one": torch.nn.Linear(24, 40), "two": torch.nn.Linear(40, 8, bias=False)})
    mix = Mix(model)
    mix._compiled = compiled  # as without numba
    kept: dict[str, dict[str, LowRank]] = {}
    for number in range(7):
        changes = {
            path: LowRank(
                torch.randn(rank, model[path].in_features), torch.randn(rank, model[path].out_features),
                torch.rand(model[path].out_features) + 0.5 if draw.random() < 0.3 else None,
            )
            for path in draw.sample(["one", "two"], draw.randint(1, 2))
            for rank in [draw.randint(1, 17)]
        }  # fmt: skip
        mix.add(f"n{number}", changes)
        kept[f"n{number}"] = changes
    mix.remove("n2")
    mix.add("late", kept["n5"])
    kept["late"] = kept["n5"]
    del kept["n2"]
    tokens = [(draw.choice([None, *kept]), draw.randint(1, draw.choice([1, 2, 12]))) for _ in range(9)]
    mix.set_plan(tokens, torch.device("cpu"))
    count = sum(number for _, number in tokens)
    owner = [name for name, number in tokens for _ in range(number)]
    for path, place in mix.places.items():
        x_NI = torch.randn(count, model[path].in_features)
        y_NO = model[path](x_NI).detach()
        mix.add_to([(place, 0)], y_NO, x_NI)
        for x_I, y_O, name in zip(x_NI, y_NO, owner, strict=True):
            weight, bias = model[path].weight.detach(), model[path].bias
            change = kept.get(name, {}).get(path) if name is not None else None
            if change is not None:
                weight = weight + change.b_RO.T @ change.a_RI
                if change.gain_O is not None:
                    weight = weight * change.gain_O[:, None]
            want = x_I @ weight.T + (0 if bias is None else bias.detach())
            torch.testing.assert_close(y_O, want, rtol=1e-4, atol=1e-4)
