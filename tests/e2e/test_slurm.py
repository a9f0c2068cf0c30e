"""A generated job on a real Slurm: one node, made of Debian's packages, on the loopback address."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tanzim.core.config import load
from tanzim.core.run import RunFolder
from tanzim.pipeline.config import Config
from tanzim.pipeline.launch import launch_job

pytestmark = pytest.mark.slow

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "scontrol")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=120
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run munge, controller and daemon for one test."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent or os.geteuid() != 0:
        why = f"{', '.join(absent)} not installed" if absent else "its daemons need to run as root"
        pytest.skip(f"no Slurm here: {why}; sh scripts/cluster.sh installs it")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller, daemon = free_ports(2)
    config = folder / "slurm.conf"
    places = {"host": socket.gethostname(), "folder": folder, "cores": os.cpu_count()}
    config.write_text(CONFIG.format(controller=controller, daemon=daemon, **places))
    monkeypatch.setenv("SLURM_CONF", str(config))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--force", "--foreground", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-i", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config)],
    ]
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as log:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            if command[0] == "munged":
                until((folder / "munge.socket").exists, 30)
        until(lambda: "idle" in run("sinfo", "--noheader", "--format=%T", check=False), 60)
        yield
    finally:
        run("scancel", "--full", "--signal=KILL", f"--user={os.getuid()}", check=False)
        for process in reversed(daemons):
            process.terminate()
            process.wait(30)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout


def until(true: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def state(number: str) -> str:
    words = run("scontrol", "show", "job", number).split()
    return next(word.partition("=")[2] for word in words if word.startswith("JobState="))


def over(number: str) -> bool:
    return state(number) not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


def test_a_cancelled_job_saves_its_step_and_the_next_one_goes_on(
    slurm: None, tiny_model: Path, fruit_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"data.path=[{fruit_rows}]", f"model.name={tiny_model}", "model.device=cpu", "name=job"]
    settings += ["train.tokens_per_step=512", "train.tokens_per_pass=256", "train.epochs=40"]
    settings += ["launch={type: slurm, nproc: 2, partition: test, time: '0:30:00'}", "train.save_steps=1000"]
    written = launch_job(load(Config, None, settings))
    assert f"{sys.executable} -m tanzim train" in written.text
    folder = RunFolder(tmp_path / "runs/job")

    def steps() -> int:
        return sum(line["kind"] == "train" for line in folder.read_metrics())

    first = run("sbatch", "--parsable", str(written.path)).strip()
    until(lambda: steps() >= 3 or over(first), 240)
    run("scancel", first)
    until(lambda: over(first), 150)
    log = next(folder.path.glob(f"slurm-{first}.log")).read_text()
    assert state(first) == "CANCELLED", log
    reached = steps()
    total = next(line["steps"] for line in folder.read_metrics() if line["kind"] == "train")
    saved = [int(path.name.partition("-")[2]) for path in folder.checkpoints.glob("checkpoint-*")]
    assert max(saved, default=0) == reached < total, log

    second = run("sbatch", "--parsable", str(written.path)).strip()
    until(lambda: over(second), 400)
    log = next(folder.path.glob(f"slurm-{second}.log")).read_text()
    assert state(second) == "COMPLETED", log
    said = [line["message"] for line in folder.read_metrics() if line["kind"] == "event"]
    assert f"resumed from checkpoint-{reached}" in said
    assert folder.read_manifest().status == "trained"
