"""Small adapters, and processes that use one repository at once; no torch, so that they start quickly."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Facts
from tanzim.core.errors import RunError

HASH = "a" * 64
REFUSALS = ("already", "cannot be rolled back", "there is no adapter")


def small(folder: Path, *, seed=0, base="tiny/base", base_hash=HASH, kind="LORA") -> Path:
    """Write the smallest folder that counts as an adapter, without a model."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    tensors = {
        f"base_model.model.layer.lora_{part}.weight": draw.standard_normal(shape, dtype=np.float32)
        for part, shape in (("A", (2, 6)), ("B", (5, 2)))
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": kind, "r": 2, "lora_alpha": 4, "target_modules": ["layer"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "tanzim.json").write_text(json.dumps({"base": base, "base_hash": base_hash}))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _work(url: str, folder: Path, worker: int, rounds: int) -> None:
    repository = Repository(url)
    for number in range(rounds):
        repository.add(folder, Facts("shared", "task", text=f"{worker}/{number}"))
        try:
            repository.promote(f"shared@{1 + worker}")
            repository.roll_back("task")
        except RunError as error:
            if not any(words in error.what for words in REFUSALS):
                raise


def race(url: str, folder: Path, workers: int, rounds: int) -> Repository:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(url, folder, n, rounds)) for n in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return Repository(url)


def check_race(repository: Repository, workers: int, rounds: int) -> None:
    """Nothing anybody wrote is lost, versions are 1, 2, 3…, and the log explains the state."""
    entries = repository.entries()
    assert {entry.facts.text for entry in entries} == {
        f"{w}/{n}" for w in range(workers) for n in range(rounds)
    }
    assert [entry.version for entry in entries] == list(range(1, workers * rounds + 1))
    stack: list[str] = []
    for event in repository.log():
        if event["event"] == "promote":
            assert stack[-1:] != [event["ref"]]
            stack.append(event["ref"])
        elif event["event"] == "roll back":
            stack.pop()
            assert stack[-1] == event["ref"]
    assert repository.state().tasks.get("task", []) == stack
    for entry in entries:
        assert len(list(repository.folder(entry).iterdir())) == 3


def add_many(url: str, folder: Path) -> None:
    for number in range(10_000):
        Repository(url).add(folder, Facts("many", "task", text=str(number)))
