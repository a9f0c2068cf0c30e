"""A step on two ranks is the step of one: losses, gradients, weights and moments; and what ends a job."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "train"))
from tiny_train import fit, lines, tiny_llama, tiny_method

from tanzim.core.errors import Interrupted, TrainError
from tanzim.core.records import Json
from tanzim.launch.config import LocalLaunch
from tanzim.launch.local import run_ranks

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
LORA, FULL = {"type": "lora", "rank": 4}, {"type": "full"}
SHORT: Json = {"max_steps": 5, "eval_steps": 3}
# name: what is trained, in which precision, with which settings; on two ranks, and alone in this process.
JOBS: dict[str, Json] = {
    "ddp-lora": {"dtype": "float64", "method": LORA, "settings": SHORT},
    "ddp-full": {"dtype": "float64", "method": FULL, "settings": SHORT | {"learning_rate": 1e-3}},
    "ddp-ema": {"dtype": "float64", "method": LORA, "settings": SHORT | {"ema_decay": 0.9}},
    "ddp-mezo": {
        "dtype": "float64",
        "method": LORA,
        "settings": SHORT | {"optimizer": {"type": "mezo"}, "learning_rate": 1e-4},
    },
    "ddp-adalora": {
        "dtype": "float64",
        "method": {"type": "adalora"},
        "settings": SHORT | {"learning_rate": 1e-3},
    },
    "ddp-dylora": {
        "dtype": "float64",
        "method": {"type": "dylora"},
        "settings": SHORT | {"learning_rate": 1e-3},
    },
    "ddp-hft": {
        "dtype": "float64",
        "method": {"type": "hft"},
        "settings": SHORT | {"learning_rate": 1e-3},
    },
    "ddp-bottleneck": {
        "dtype": "float64",
        "method": {"type": "bottleneck"},
        "settings": SHORT | {"learning_rate": 1e-3},
    },
    "fsdp-lora": {"dtype": "float64", "method": LORA, "settings": SHORT, "strategy": "fsdp"},
    "fsdp-full": {
        "dtype": "float64",
        "method": FULL,
        "settings": SHORT | {"learning_rate": 1e-3, "gradient_checkpointing": True},
        "strategy": "fsdp",
    },
    # One document a step: the second rank has none, and joins nevertheless.
    "ddp-alone": {
        "dtype": "float64",
        "method": LORA,
        "settings": SHORT | {"tokens_per_step": 8, "tokens_per_pass": 8},
    },
    "fsdp-alone": {
        "dtype": "float64",
        "method": LORA,
        "settings": SHORT | {"tokens_per_step": 8, "tokens_per_pass": 8},
        "strategy": "fsdp",
    },
    "ddp-float32": {"method": LORA, "settings": {"max_steps": 20, "epochs": 9, "learning_rate": 2e-3}},
    "fsdp-float32": {
        "method": LORA,
        "settings": {"max_steps": 20, "epochs": 9, "learning_rate": 2e-3},
        "strategy": "fsdp",
    },
    "ddp-memory": {
        "dtype": "float64",
        "method": LORA,
        "settings": SHORT | {"tokens_per_pass": 256},
        "trouble": {"kind": "memory", "rank": 1, "at": 3},
    },
}
# Dropout, stopped in the middle; then the same again, which goes on.
CUT: Json = {"method": LORA, "dropout": 0.3, "settings": {"max_steps": 6, "eval_steps": 2, "epochs": 9}}
STOP = {"trouble": {"kind": "interrupt", "rank": 1, "at": 3}}
NO_DROPOUT: Json = CUT | {"dropout": 0.0, "dtype": "float64"}


def on_ranks(folder: Path, jobs: list[Json], monkeypatch: pytest.MonkeyPatch, limit: float = 60) -> list[str]:
    """Run ``jobs`` one after another on two ranks; return what they printed."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "helpers"))
    folder.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    (folder / "jobs.json").write_text(json.dumps([job | {"heartbeat": limit} for job in jobs]))
    launch = LocalLaunch(nproc=2, heartbeat_seconds=limit)
    module = ["rank_worker", str(folder / "jobs.json")]
    run_ranks(module, folder / "ranks", launch, name="test", write=said.append)
    return said


def alone(root: Path, job: Json, **more: Any) -> None:
    """Run a job in this process."""
    method = job["method"] | ({"dropout": job["dropout"]} if "dropout" in job else {})
    prepared = tiny_method(tiny_llama(getattr(torch, job.get("dtype", "float32"))), **method)
    fit(root, prepared=prepared, method=method, **job["settings"], **more)


def interrupted(root: Path, job: Json) -> None:
    """Run a job in this process, and stop it after its third step."""

    def stop(line: Json) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        alone(root, job, on_line=stop)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run everything that goes well, in one job of two ranks."""
    root = tmp_path_factory.mktemp("two")
    jobs = [{"root": str(root / name), **job} for name, job in JOBS.items()]
    whole, cut, more, fewer = (str(root / name) for name in ("whole", "cut", "more", "fewer"))
    jobs += [{"root": whole, **CUT}, {"root": cut, **CUT, **STOP}, {"root": cut, **CUT}]
    for strategy in ("ddp", "fsdp"):
        interrupted(root / f"more-{strategy}", NO_DROPOUT)
        jobs += [
            {"root": f"{more}-{strategy}", **NO_DROPOUT, "strategy": strategy},
            {"root": f"{fewer}-{strategy}", **NO_DROPOUT, **STOP, "strategy": strategy},
        ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        on_ranks(root, jobs, monkeypatch)
    return root


def farthest(ours: Path, theirs: Path) -> float:
    """Return the largest difference between the tensors of two runs, random states aside."""
    largest = 0.0
    paths = [p for p in sorted(theirs.glob("run/**/*.safetensors")) if p.name != "rng.safetensors"]
    assert any("checkpoint-" in str(path) for path in paths)
    for path in paths:
        one, other = load_file(ours / path.relative_to(theirs)), load_file(path)
        assert one.keys() == other.keys(), path
        for name, value in other.items():
            assert one[name].dtype == value.dtype, f"{path}: {name}"
            largest = max(largest, float((one[name].double() - value.double()).abs().max()))
    return largest


def near(value: float, relative: float) -> Any:
    return pytest.approx(value, rel=relative)


def resumed_from(root: Path) -> int:
    said = " ".join(line["message"] for line in lines(root, "event"))
    return int(re.search(r"resumed from checkpoint-(\d+)", said)[1])


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_train_as_one_does(name: str, two: Path, tmp_path: Path) -> None:
    job, exact = JOBS[name], JOBS[name].get("dtype") == "float64"
    alone(tmp_path, job)
    for kind in ("train", "eval"):
        ours, theirs = lines(two / name, kind), lines(tmp_path, kind)
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys() == other.keys()
            for key, value in other.items():
                wanted = near(value, 1e-9 if exact else 1e-4) if isinstance(value, float) else value
                assert one[key] == wanted, f"{kind}, step {other['step']}: {key}"
    if exact:
        # Adam divides by the square root of tiny gradients, which magnifies the rounding of a sum.
        assert farthest(two / name, tmp_path) < 1e-9


def test_memory_lost_on_one_rank_makes_the_passes_of_all_smaller(two: Path) -> None:
    said = [line["message"] for line in lines(two / "ddp-memory", "event")]
    assert any("out of memory: tokens_per_pass 256 →" in message for message in said)


def test_a_resumed_run_on_two_ranks_is_the_same_bit_for_bit(two: Path) -> None:
    assert 0 < resumed_from(two / "cut") < 6
    for kind in ("train", "eval"):
        assert lines(two / "cut", kind) == lines(two / "whole", kind)
    assert farthest(two / "cut", two / "whole") == 0


def test_ranks_drop_out_otherwise_than_one(two: Path, tmp_path: Path) -> None:
    # Else the test above would not see whether each rank's random numbers come back.
    alone(tmp_path, CUT)
    ours, theirs = lines(two / "whole", "train"), lines(tmp_path, "train")
    assert ours[1]["loss"] != pytest.approx(theirs[1]["loss"], rel=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("way", ["more", "fewer"])
def test_a_run_goes_on_with_more_or_fewer_ranks(strategy: str, way: str, two: Path, tmp_path: Path) -> None:
    root = two / f"{way}-{strategy}"
    if way == "fewer":
        alone(root, NO_DROPOUT)
    alone(tmp_path, NO_DROPOUT)
    assert 0 < resumed_from(root) < 6
    ours, theirs = lines(root, "train"), lines(tmp_path, "train")
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-9)
    assert farthest(root, tmp_path) < 1e-9


def trouble(kind: str, tmp_path: Path) -> list[Json]:
    settings = {"max_steps": 6, "tokens_per_pass": 40}
    made = {"kind": kind, "rank": 1, "at": 7}
    return [{"root": str(tmp_path / "run"), "method": LORA, "settings": settings, "trouble": made}]


def test_a_killed_rank_is_named_with_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        TrainError, match=r"rank 1 was killed by SIGKILL in step \d, on rows-0.jsonl, row \d+"
    ):
        on_ranks(tmp_path / "job", trouble("kill", tmp_path), monkeypatch)
    assert no_rank_left(tmp_path / "job")


def test_a_rank_that_hangs_ends_the_job_with_its_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainError, match=r"the job hung: rank 1 has been silent for \d+ s in step") as caught:
        on_ranks(tmp_path / "job", trouble("hang", tmp_path), monkeypatch, limit=3)
    assert "rows-0.jsonl, row" in caught.value.what
    stack = Path(str(caught.value.where)).read_text()
    assert stack.index("in loss_sum") < stack.index("in main"), "where it slept, and what called it"
    assert no_rank_left(tmp_path / "job")


def test_a_loss_that_is_not_finite_stops_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainError, match="rank 1: the loss became nan in step") as caught:
        on_ranks(tmp_path / "job", trouble("nan", tmp_path), monkeypatch)
    assert "rows-0.jsonl, row" in str(caught.value.where)
    assert no_rank_left(tmp_path / "job")


def no_rank_left(folder: Path) -> bool:
    for path in (folder / "ranks").glob("rank-*.json"):
        status = Path(f"/proc/{json.loads(path.read_text())['pid']}/cmdline")
        if status.exists() and b"rank_worker" in status.read_bytes():
            return False
    return True
