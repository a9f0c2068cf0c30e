"""``tanzim train --nproc 2`` as a person runs it: trained, interrupted and resumed on one process, killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tanzim.core.run import RunFolder

pytestmark = pytest.mark.slow

CONFIG = """
name: job
data: {{path: [{data}]}}
model: {{name: {model}, device: cpu}}
train: {{epochs: 40, tokens_per_step: 512, tokens_per_pass: 128, learning_rate: 2.0e-3, save_steps: 1000}}
"""


@pytest.fixture
def project(tiny_model: Path, fruit_rows: Path, tmp_path: Path) -> Path:
    text = CONFIG.format(data=json.dumps(str(fruit_rows)), model=json.dumps(str(tiny_model)))
    (tmp_path / "tanzim.yaml").write_text(text)
    return tmp_path


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tanzim", "train", *arguments]
    environment = os.environ | {"COLUMNS": "300", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def steps(project: Path) -> int:
    lines = RunFolder(project / "runs/job").read_metrics()
    return sum(line["kind"] == "train" for line in lines)


def reach(project: Path, process: subprocess.Popen[str], count: int) -> None:
    end = time.monotonic() + 240
    while steps(project) < count:
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_interrupted_on_two_and_resumed_on_one(strategy: str, project: Path) -> None:
    process = start(project, "--nproc", "2", f"launch.strategy={strategy}")
    reach(project, process, 3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    reached = int(re.search(r"error: interrupted after step (\d+) of", said)[1])
    assert "Traceback" not in said
    assert "[rank 0] training 1/" in said

    again = start(project, "train.keep_checkpoints=1")
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert f"resumed from checkpoint-{reached}" in said
    assert RunFolder(project / "runs/job").read_manifest().status == "trained"


def test_a_killed_rank_is_named(project: Path) -> None:
    process = start(project, "--nproc", "2")
    reach(project, process, 3)
    beat = json.loads((project / "runs/job/ranks/rank-1.json").read_text())
    os.kill(beat["pid"], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"error: rank 1 was killed by SIGKILL in step \d+", said), said
    assert "the same command again" in said


def test_bad_input_is_one_message(project: Path) -> None:
    process = start(project, "--nproc", "2", "model.max_length=8")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: 102 of 102 train examples are longer than 8 tokens" in said
    assert "Traceback" not in said


def test_two_machines_share_no_disk(tiny_model: Path, fruit_rows: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machines = []
    for node in range(2):
        folder = tmp_path / f"machine-{node}"
        folder.mkdir()
        text = CONFIG.format(data=json.dumps(str(fruit_rows)), model=json.dumps(str(tiny_model)))
        (folder / "tanzim.yaml").write_text(text.replace("epochs: 40", "max_steps: 3"))
        launch = f"launch={{type: torchrun, nodes: 2, node_rank: {node}, master: 127.0.0.1:{port}}}"
        machines.append((folder, start(folder, launch)))
    for folder, process in machines:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, f"{folder.name}: {said}"
    first, second = (RunFolder(folder / "runs/job") for folder, _ in machines)
    assert first.read_manifest().status == "trained"
    assert (first.adapter / "adapter_model.safetensors").is_file()
    assert steps(machines[0][0]) == 3
    assert second.tokens.is_dir()
    assert not second.adapter.exists()
    assert not second.metrics.exists()
