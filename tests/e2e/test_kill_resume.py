"""A real training process, killed with SIGKILL at random moments, goes on bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "train"))
from tiny_train import fit, lines, tiny_lora

HELPERS = sys.path[0]
KILLS = 10
SETTINGS: dict[str, Any] = {
    "epochs": 10,
    "tokens_per_step": 256,
    "tokens_per_pass": 100,  # several passes a step
    "eval_steps": 3,
    "save_steps": 2,  # so that kills fall between checkpoints, too
    "keep_checkpoints": 3,
    "schedule": "cosine",
}


def train_in_child(root: Path) -> None:
    """Train with dropout, slowly enough to be killed at any place of a step."""
    torch.set_num_threads(1)
    fit(root, model=tiny_lora(dropout=0.2), on_line=lambda line: time.sleep(0.01), **SETTINGS)


def start(root: Path) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny_train"])
    process = context.Process(target=train_in_child, args=(root,))
    process.start()
    return process


def finished(root: Path) -> set[int]:
    return {
        int(p.parent.name.split("-")[1]) for p in root.glob("run/checkpoints/checkpoint-*/trainer_state.json")
    }


def step_reached(root: Path) -> int:
    path = root / "run" / "metrics.jsonl"
    written = path.read_text().splitlines()[:-1] if path.exists() else []
    return max((json.loads(line)["step"] for line in written), default=0)


@pytest.mark.slow
def test_ten_kills_lose_no_checkpoint_and_change_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", HELPERS)  # by which the fork server finds what it preloads
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    process = start(plain)
    process.join(240)
    assert process.exitcode == 0
    steps = len(lines(plain, "train"))
    assert steps > 2 * KILLS

    draw = random.Random(time.time_ns())
    for kill in range(1, KILLS + 1):
        process = start(killed)
        goal = steps * kill // (KILLS + 2)
        while process.is_alive() and step_reached(killed) < goal:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.12))
        before = finished(killed)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
        # The newest checkpoint that was there before the kill is still there, or a newer one is.
        after = finished(killed)
        assert max(after, default=0) >= max(before, default=0)
        for step in after:
            folder = killed / "run" / "checkpoints" / f"checkpoint-{step}"
            for name in ("weights", "optimizer", "rng"):
                assert load_file(folder / f"{name}.safetensors")
    process = start(killed)
    process.join(240)
    assert process.exitcode == 0

    for kind in ("train", "eval"):
        assert lines(killed, kind) == lines(plain, kind)
    assert any("resumed from checkpoint" in line["message"] for line in lines(killed, "event"))
    assert finished(killed) == finished(plain)
    for path in sorted(plain.glob("run/**/*.safetensors")):
        ours, theirs = load_file(killed / path.relative_to(plain)), load_file(path)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), f"{path.name}: {name}"
