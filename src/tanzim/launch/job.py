"""What every generated job has in common: the command that each of its machines runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tanzim.core.records import Json
from tanzim.launch.config import KubernetesLaunch, SkyPilotLaunch, SlurmLaunch

PORT = 29400  # at which the ranks meet on the first machine


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be trained elsewhere.

    Args:
        name: the run's name.
        folder: the project's folder here, from which paths in the config start.
        config: the run's resolved config file.
        text: what stands in it.

    """

    name: str
    folder: Path
    config: Path
    text: str

    def label(self) -> str:
        """Return the name as clusters want it: a DNS label (RFC 1123) of at most 52 characters."""
        return "tanzim-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower())[:45].strip("-")


class _Dumper(yaml.SafeDumper):
    """YAML in which a text of several lines stands as it is."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(objects: Sequence[Json]) -> str:
    """Return ``objects`` as the documents of one YAML text, for people to read, too."""
    return yaml.dump_all(objects, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110)


def train_command(
    tanzim: Sequence[str],
    config: str,
    launch: SlurmLaunch | KubernetesLaunch | SkyPilotLaunch,
    *,
    node_rank: str,
    host: str,
) -> str:
    """Return the shell command that trains a machine's part of a job.

    Args:
        tanzim: how Tanzim is called there.
        config: the config's path there, for the shell as it is.
        launch: how many machines and ranks.
        node_rank: shell expression for the machine's number.
        host: shell expression for the first machine's address.

    """
    keys = {
        "type": "local" if launch.nodes == 1 else "torchrun",
        "nproc": launch.nproc,
        "strategy": launch.strategy,
        "heartbeat_seconds": launch.heartbeat_seconds,
    }
    if launch.nodes > 1:
        keys |= {"nodes": launch.nodes, "node_rank": node_rank, "master": f"{host}:{PORT}"}
    inner = ", ".join(f"{key}: {value}" for key, value in keys.items())
    # In double quotes, so that the shell there fills in the machine's number.
    return f'{shlex.join(tanzim)} train {config} "launch={{{inner}}}"'
