"""Adapters that come and go: more than fit into memory, asked for by name, answered as plain peft does."""

from __future__ import annotations

import copy
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import HASH, generated, save_changed
from tanzim.core.errors import ModelError, WrongBaseError
from tanzim.infer.engine import Engine, Request

PROMPTS = [[5, 9, 11], [40, 41, 42, 43, 44], [7] * 20]
KINDS: list[dict[str, Any]] = [{"type": "lora", "rank": 4}, {"type": "ia3"}, {"type": "dora", "rank": 2}]


@pytest.fixture
def folders(model: LlamaForCausalLM, tmp_path: Path) -> dict[str, Path]:
    return {f"a{i}": save_changed(model, tmp_path / f"a{i}", i, **KINDS[i % 3]) for i in range(9)}


@pytest.fixture
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(copy.deepcopy(model), tokenizer, stop_ids=[], base_hash=HASH)


def largest(folders: dict[str, Path]) -> int:
    return max((folder / "adapter_model.safetensors").stat().st_size for folder in folders.values())


@pytest.mark.parametrize("paged", [True, False])
def test_more_adapters_than_fit(
    model: LlamaForCausalLM, engine: Engine, folders: dict[str, Path], paged: bool
) -> None:
    fetched: list[str] = []

    def fetch(name: str) -> Path:
        fetched.append(name)
        return folders[name]

    bound = 3 * 2 * largest(folders)
    engine.supply_adapters(fetch, memory=bound)
    scheduler = engine.server(6) if paged else engine.scheduler(6)
    draw = random.Random(4)
    names = [draw.choice([None, *folders]) for _ in range(40)]
    requests = [Request(draw.choice(PROMPTS), name, max_new_tokens=draw.randint(1, 6)) for name in names]
    sequences = [engine.sequence(request) for request in requests]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.busy:
        scheduler.step()
        assert engine._residents.size <= bound
    for request, sequence in zip(requests, sequences, strict=True):
        folder = None if request.adapter is None else folders[request.adapter]
        wanted = generated(model, folder, request.prompt_ids, request.max_new_tokens)
        assert sequence.completion().ids == wanted
    assert len(fetched) == len(set(fetched))  # an evicted one comes back from where it lay
    assert 0 < len(engine._residents.loaded) < len(set(names)) - 1


def test_those_in_use_stay_and_others_wait(engine: Engine, folders: dict[str, Path]) -> None:
    engine.supply_adapters(folders.__getitem__, memory=2 * largest(folders))
    scheduler = engine.server(4)
    first, second = (engine.sequence(Request(PROMPTS[0], name, max_new_tokens=6)) for name in ("a0", "a3"))
    scheduler.add(first)
    scheduler.add(second)
    scheduler.step()
    assert engine._residents.loaded == ("a0",)
    assert not second.ids
    with pytest.raises(ModelError, match="answering"):
        engine.remove_adapter("a0")
    while scheduler.busy:
        scheduler.step()
    assert second.finish_reason == "length"
    assert engine._residents.loaded == ("a3",)


def test_what_cannot_be_loaded_fails_alone(
    model: LlamaForCausalLM, engine: Engine, folders: dict[str, Path], tmp_path: Path
) -> None:
    foreign = save_changed(model, tmp_path / "foreign", 1, type="lora", rank=2)
    record = foreign / "tanzim.json"
    record.write_text(record.read_text().replace(HASH, "f" * 64))

    def fetch(name: str) -> Path:
        if name == "ghost":
            raise ModelError("there is no adapter 'ghost'")
        return foreign if name == "foreign" else folders[name]

    engine.supply_adapters(fetch)
    for scheduler in (engine.server(4), engine.scheduler(4)):
        names = ["a0", "ghost", "foreign", None]
        sequences = [engine.sequence(Request(PROMPTS[0], name, max_new_tokens=4)) for name in names]
        for sequence in sequences:
            scheduler.add(sequence)
        seen = []
        while scheduler.busy:
            seen += [s for s in scheduler.step() if s.error is not None]
        assert seen == sequences[1:3]
        assert "ghost" in str(seen[0].error)
        assert isinstance(seen[1].error, WrongBaseError)
        assert sequences[0].completion().ids == generated(model, folders["a0"], PROMPTS[0], 4)
        assert sequences[3].completion().ids == generated(model, None, PROMPTS[0], 4)
    with pytest.raises(ModelError, match="ghost"):
        engine.generate([Request(PROMPTS[0], "ghost"), Request(PROMPTS[0], "a0")])
    with pytest.raises(ModelError, match="ghost"):
        list(engine.stream(Request(PROMPTS[0], "ghost")))
    engine.remove_adapter("a0")  # nobody holds it any more
    engine.supply_adapters(fetch, memory=100)
    with pytest.raises(ModelError, match="MB for all"):
        engine.generate([Request(PROMPTS[0], "a1")])


def test_a_removed_adapter_can_come_back_changed(
    model: LlamaForCausalLM, engine: Engine, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    long = [9, 8, 7] * 12  # longer than a page: the old adapter's pages must not be taken for the new one's
    scheduler = engine.server(2)
    for version in ("a0", "a3"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(folders[version], folder)
        engine.add_adapter("mine", folder)
        sequence = engine.sequence(Request(long, "mine", max_new_tokens=8))
        scheduler.add(sequence)
        while scheduler.busy:
            scheduler.step()
        assert sequence.completion().ids == generated(model, folder, long, 8)
        engine.remove_adapter("mine")
    with pytest.raises(ModelError, match="no adapter 'mine'"):
        engine.sequence(Request(long, "mine"))
