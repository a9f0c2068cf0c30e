"""Adapters that come and go: more than fit into memory, asked for by name, answered as plain peft does."""

from __future__ import annotations

import copy
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.adapters import HASH, generated, save_changed
from tanzim.core.errors import ModelError, WrongBaseError
from tanzim.infer.engine import Engine, Request
from tanzim.infer.refusals import TooLongError
from tanzim.infer.residents import GoneError, TooLargeError

PROMPTS = [[5, 9, 11], [40, 41, 42, 43, 44], [7] * 20]
KINDS: list[dict[str, Any]] = [{"type": "lora", "rank": 4}, {"type": "ia3"}, {"type": "dora", "rank": 2}]


@pytest.fixture
def folders(model: LlamaForCausalLM, tmp_path: Path) -> dict[str, Path]:
    return {f"a{i}": save_changed(model, tmp_path / f"a{i}", i, **KINDS[i % 3]) for i in range(9)}


@pytest.fixture
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(copy.deepcopy(model), tokenizer, stop_ids=[], base_hash=HASH)


def know(engine: Engine, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        engine.know_adapter(name, folder)


def largest(folders: dict[str, Path]) -> int:
    return max((folder / "adapter_model.safetensors").stat().st_size for folder in folders.values())


@pytest.mark.parametrize("paged", [True, False])
def test_more_adapters_than_fit(
    model: LlamaForCausalLM, engine: Engine, folders: dict[str, Path], paged: bool
) -> None:
    bound = 3 * 2 * largest(folders)
    engine.bound_adapters(bound)
    know(engine, folders)
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
    assert 0 < len(engine._residents.loaded) < len(set(names)) - 1


def test_those_in_use_stay_and_others_wait(engine: Engine, folders: dict[str, Path]) -> None:
    engine.bound_adapters(2 * largest(folders))
    know(engine, folders)
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
    broken = {
        name: shutil.copytree(folders["a3"], tmp_path / name) for name in ("ghost", "foreign", "forgotten")
    }
    know(engine, {"a0": folders["a0"], **broken})
    shutil.rmtree(broken["ghost"])
    record = broken["foreign"] / "tanzim.json"
    record.write_text(record.read_text().replace(HASH, "f" * 64))
    for scheduler in (engine.server(4), engine.scheduler(4)):
        engine.know_adapter("forgotten", broken["forgotten"])
        names = ["a0", *broken, None]
        sequences = [engine.sequence(Request(PROMPTS[0], name, max_new_tokens=4)) for name in names]
        for sequence in sequences:
            scheduler.add(sequence)
        engine.remove_adapter("forgotten")  # while it is waited for
        seen = []
        while scheduler.busy:
            seen += [s for s in scheduler.step() if s.error is not None]
        assert seen == sequences[1:4]
        assert [type(s.error) for s in seen] == [GoneError, WrongBaseError, GoneError]
        assert sequences[0].completion().ids == generated(model, folders["a0"], PROMPTS[0], 4)
        assert sequences[4].completion().ids == generated(model, None, PROMPTS[0], 4)
    with pytest.raises(GoneError, match="folder is gone"):
        engine.generate([Request(PROMPTS[0], "ghost"), Request(PROMPTS[0], "a0")])
    with pytest.raises(GoneError, match="folder is gone"):
        list(engine.stream(Request(PROMPTS[0], "ghost")))
    engine.remove_adapter("a0")  # nobody holds it any more


def test_what_can_never_be_loaded_is_refused_at_once(
    engine: Engine, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(GoneError, match="folder is gone"):
        engine.know_adapter("none", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="not an adapter folder"):
        engine.know_adapter("empty", tmp_path / "empty")
    engine.add_adapter("a0", folders["a0"])
    with pytest.raises(TooLargeError, match="MB for all"):
        engine.bound_adapters(100)
    with pytest.raises(TooLargeError, match="MB for all"):
        engine.know_adapter("a3", folders["a3"])
    assert engine.adapters == ("a0",)


def test_a_new_bound_holds_for_what_is_loaded(engine: Engine, folders: dict[str, Path]) -> None:
    for name in ("a0", "a3", "a6"):
        engine.add_adapter(name, folders[name])
    engine._residents.bring("a0")
    engine.bound_adapters(2 * 2 * largest(folders))
    assert engine._residents.loaded == ("a6", "a0")


def test_numbers_count_as_they_will_lie_in_memory(
    engine: Engine, folders: dict[str, Path], tmp_path: Path
) -> None:
    half = shutil.copytree(folders["a0"], tmp_path / "half")
    tensors = load_file(half / "adapter_model.safetensors")
    save_file({name: value.bfloat16() for name, value in tensors.items()}, half / "adapter_model.safetensors")
    for name, folder in (("half", half), ("whole", folders["a0"])):
        engine.add_adapter(name, folder)
        assert engine._residents.size == 2 * sum(value.nbytes for value in tensors.values())
        engine.remove_adapter(name)


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


@pytest.mark.parametrize("paged", [True, False])
def test_what_an_adapter_puts_before_a_prompt_needs_room_also_where_it_is_loaded_late(
    model: LlamaForCausalLM, engine: Engine, tmp_path: Path, paged: bool
) -> None:
    learnt = 7
    engine.know_adapter("p", save_changed(model, tmp_path / "p", 1, type="prompt", tokens=learnt))
    context = engine.context_length
    assert context is not None
    scheduler = engine.server(2) if paged else engine.scheduler(2)
    sequences = [
        engine.sequence(Request([5] * (context - learnt - room), "p", max_new_tokens=50)) for room in (0, 3)
    ]
    assert not engine.resident
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.busy:
        scheduler.step()
    full, fitting = sequences
    assert isinstance(full.error, TooLongError)
    assert f"the adapter adds {learnt}" in full.error.what
    assert (fitting.error, len(fitting.ids), fitting.finish_reason) == (None, 3, "length")
