"""Generated jobs, read by the tools they are for: bash, Kubernetes' own schemas, SkyPilot's own classes."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tanzim.core.config import load
from tanzim.core.errors import ConfigError
from tanzim.launch.config import KubernetesLaunch, SkyPilotLaunch, SlurmLaunch, TorchrunLaunch
from tanzim.launch.job import Job
from tanzim.launch.kubernetes import manifests
from tanzim.launch.skypilot import task
from tanzim.launch.slurm import batch_script
from tanzim.pipeline.config import Config
from tanzim.pipeline.launch import launch_job

SKYPILOT = Path(__file__).parents[3] / ".venv" / "skypilot" / "bin" / "python"
# The words after "tanzim" in the command that a shell would run, one a line, in place of running it.
FAKE = 'tanzim() { printf "%s\\n" "$@"; }; exec() { "$@"; }; '


@pytest.fixture
def wanted(tmp_path: Path) -> Job:
    return Job(
        "My_Run", tmp_path / "my project", tmp_path / "my project/runs/My_Run/config.yaml", "seed: 5\n"
    )


def words(command: str, **environment: str) -> list[str]:
    """Let a shell fill in a command, and return its arguments."""
    out = subprocess.run(
        ["bash", "-c", FAKE + command], env=environment, capture_output=True, text=True, check=True
    )
    return out.stdout.splitlines()


def launch_in(arguments: list[str]) -> Any:
    """Return the launch section that a machine's command line comes to."""
    assert arguments[0] == "train"
    return load(Config, None, arguments[2:]).launch


def test_slurm_script_asks_for_what_is_configured(wanted: Job) -> None:
    launch = SlurmLaunch(
        nproc=4, nodes=2, cpus=16, memory_gib=64, partition="gpu", account="lab", gpu="gpu:a100",
        setup=["module load cuda"],
    )  # fmt: skip
    script = batch_script(wanted, launch)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    options = dict(
        shlex.split(line)[1].removeprefix("--").split("=", 1)
        for line in script.splitlines()
        if line.startswith("#SBATCH")
    )
    assert options == {
        "job-name": "tanzim-my-run",
        "nodes": "2",
        "ntasks-per-node": "1",
        "time": "1-00:00:00",
        "signal": "TERM@300",
        "partition": "gpu",
        "account": "lab",
        "cpus-per-task": "16",
        "mem": "64G",
        "gres": "gpu:a100:4",
        "chdir": str(wanted.folder),
        "output": str(wanted.config.parent / "slurm-%j.log"),
    }
    assert "module load cuda" in script.splitlines()


def test_slurm_machines_meet_at_the_first(wanted: Job) -> None:
    script = batch_script(wanted, SlurmLaunch(nproc=4, nodes=2, strategy="fsdp"))
    fake = (
        'scontrol() { printf "node-3\\nnode-4\\n"; }; srun() { shift 2; SLURM_NODEID=1 bash -c "$FAKE $1"; };'
    )
    script = script.replace(script[script.index("exec ") : script.index(" train")], "exec tanzim")
    shown = words(f"export FAKE={shlex.quote(FAKE)}; {fake} {script}", SLURM_JOB_NODELIST="node-[3-4]")
    assert shown[1] == str(wanted.config)
    want = TorchrunLaunch(nproc=4, nodes=2, node_rank=1, master="node-3:29400", strategy="fsdp")
    assert launch_in(shown) == want


@pytest.mark.parametrize("nodes", [1, 3])
def test_kubernetes_takes_the_objects(nodes: int, wanted: Job) -> None:
    asked = {"gpu": "nvidia.com/gpu", "cpus": 8, "memory_gib": 32}
    launch = KubernetesLaunch(nproc=2, nodes=nodes, image="registry/tanzim:1", claim="data", **asked)
    objects = manifests(wanted, launch)
    assert [o["kind"] for o in objects] == ["ConfigMap", *(["Service"] if nodes > 1 else []), "Job"]
    for one in objects:
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(one, version, strict=True)
    assert objects[0]["data"]["tanzim.yaml"] == wanted.text
    pod = objects[-1]["spec"]["template"]["spec"]
    shown = words(pod["containers"][0]["command"][2], JOB_COMPLETION_INDEX=str(nodes - 1))
    found = launch_in(shown)
    assert (found.nproc, found.type) == (2, "local" if nodes == 1 else "torchrun")
    if nodes > 1:
        # A pod's name in an Indexed Job is <job>-<index>, and <hostname>.<subdomain> resolves to it.
        name = objects[-1]["metadata"]["name"]
        assert (found.node_rank, found.master) == (2, f"{name}-0.{pod['subdomain']}:29400")
        assert objects[1]["metadata"]["name"] == pod["subdomain"]
        assert objects[-1]["spec"]["completionMode"] == "Indexed"


def test_the_schema_sees_a_wrong_object(wanted: Job) -> None:
    objects = manifests(wanted, KubernetesLaunch(image="a", claim="b"))
    objects[-1]["spec"]["template"]["spec"]["restartPolcy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects[-1], kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("missing", ["image", "claim"])
def test_kubernetes_needs_image_and_claim(missing: str, wanted: Job) -> None:
    launch = KubernetesLaunch(**{"image": "a", "claim": "b", missing: ""})
    with pytest.raises(ConfigError, match=f"launch.{missing}"):
        manifests(wanted, launch)


def test_skypilot_machines_meet_at_the_first(wanted: Job) -> None:
    spec = task(wanted, SkyPilotLaunch(nproc=8, nodes=2, gpu="H100"))
    shown = words(
        spec["run"], SKYPILOT_NODE_IPS="10.0.0.5\n10.0.0.6", SKYPILOT_NODE_RANK="1", HOME="/home/me"
    )
    assert shown[1] == "/home/me/tanzim.yaml"
    assert launch_in(shown) == TorchrunLaunch(nproc=8, nodes=2, node_rank=1, master="10.0.0.5:29400")


@pytest.mark.slow
def test_skypilot_takes_the_task(wanted: Job, tmp_path: Path) -> None:
    if not SKYPILOT.is_file():
        pytest.skip(f"SkyPilot is not in {SKYPILOT.parent.parent}; sh scripts/cluster.sh puts it there")
    wanted.folder.mkdir()
    launch = SkyPilotLaunch(
        nproc=8, nodes=2, gpu="H100", infra="aws/us-east-1", spot=True, cpus=16, memory_gib=64
    )
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(task(wanted, launch)))
    code = (
        "import sys, sky; task = sky.Task.from_yaml(sys.argv[1]); (r,) = task.resources;"
        "print(task.name, task.num_nodes, r.accelerators, r.cpus, r.memory, r.use_spot, r.cloud, r.region)"
    )
    environment = {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "PATH": "/usr/bin:/bin"}
    command = [str(SKYPILOT), "-c", code, str(path)]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    last = out.stdout.strip().splitlines()[-1]
    assert last == "tanzim-my-run 2 {'H100': 8} 16+ 64+ True AWS us-east-1"


def test_a_job_lies_in_its_run_and_printing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(Config, None, ["name=a", "launch={type: slurm, nproc: 2}"])
    shown = launch_job(config, write=False)
    assert not list(tmp_path.iterdir())
    written = launch_job(config)
    assert written.path.read_text() == shown.text
    assert written.submit == "sbatch runs/a/job.sh"
    assert load(Config, tmp_path / "runs/a/config.yaml") == config
    with pytest.raises(ConfigError, match="needs no job"):
        launch_job(load(Config, None, []))
