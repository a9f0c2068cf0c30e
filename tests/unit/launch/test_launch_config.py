"""The launch section: what may stand in it, and what is said of the rest."""

import pytest

from tanzim.core.config import load
from tanzim.core.errors import ConfigError
from tanzim.launch.config import LocalLaunch, SlurmLaunch, TorchrunLaunch
from tanzim.pipeline.config import Config


def launch(*overrides: str):
    return load(Config, None, overrides).launch


def test_without_a_type_it_is_this_machine() -> None:
    assert launch() == LocalLaunch()
    assert launch("launch.nproc=2", "launch.strategy=fsdp") == LocalLaunch(nproc=2, strategy="fsdp")


def test_a_value_in_one_line_as_jobs_pass_it() -> None:
    text = "{type: torchrun, nproc: 4, nodes: 3, node_rank: 2, master: node-7.cluster:29400}"
    wanted = TorchrunLaunch(nproc=4, nodes=3, node_rank=2, master="node-7.cluster:29400")
    assert launch(f"launch={text}") == wanted


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("launch.nproc=0", "greater than or equal to 1"),
        ("launch.heartbeat_seconds=0", "greater than 0"),
        ("launch.strategy=zero", "'ddp' or 'fsdp'"),
        ("launch.partition=short", "unknown key 'launch.partition'; did you mean 'partition'?"),
        ("launch={type: torchrun, nodes: 2, node_rank: 2}", "node_rank (2) must be below nodes (2)"),
        ("launch={type: torchrun, master: here}", "pattern"),
        ('launch={type: slurm, time: "a day"}', "pattern"),
        ('launch={type: slurm, partition: "a; rm -r b"}', "pattern"),
        ("launch={type: kubernetes, namespace: My Team}", "pattern"),
    ],
)
def test_faults_are_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch(override)
    assert said in caught.value.what
    assert caught.value.where == "command line"


def test_an_unknown_type_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="one of local, torchrun, ray, slurm, kubernetes, skypilot"):
        launch("launch.type=slurmm")


@pytest.mark.parametrize("time", ["30", "2:00:00", "1-00:00:00", "7-12"])
def test_times_as_slurm_writes_them(time: str) -> None:
    assert SlurmLaunch(time=time).time == time
