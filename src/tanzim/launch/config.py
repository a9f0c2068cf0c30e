"""The ``launch`` section: on how many processes and machines a run is trained."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tanzim.core.config import Section

Strategy = Literal["ddp", "fsdp"]


class _Ranks(Section):
    """What every way of starting ranks has in common; a rank is one process of the training."""

    nproc: int = Field(1, ge=1, le=1024)
    """Processes on each machine: one for each GPU, or on the CPU one for each few cores."""
    strategy: Strategy = "ddp"
    """ddp: every rank holds the whole model; fsdp: the decoder layers are divided among the ranks."""
    heartbeat_seconds: float = Field(600.0, gt=0, lt=math.inf)
    """A rank that begins no new pass for so long has hung: its stacks are written and the job ends."""


class LocalLaunch(_Ranks):
    """On this machine: one process, or several under torchrun."""

    type: Literal["local"] = "local"


class TorchrunLaunch(_Ranks):
    """This machine's part of a job on several, each of which runs the same command."""

    type: Literal["torchrun"] = "torchrun"
    nodes: int = Field(2, ge=1)
    """Machines of the job."""
    node_rank: int = Field(0, ge=0)
    """Which of them this is; the first, 0, keeps the run directory."""
    master: str = Field("127.0.0.1:29400", pattern=r"^[^\s:]+:\d{1,5}$")
    """host:port on machine 0 at which the ranks meet."""

    @model_validator(mode="after")
    def _one_of_them(self) -> TorchrunLaunch:
        if self.node_rank >= self.nodes:
            raise ValueError(f"node_rank ({self.node_rank}) must be below nodes ({self.nodes})")
        return self


class RayLaunch(_Ranks):
    """On a Ray cluster, through Ray Train."""

    type: Literal["ray"] = "ray"
    nodes: int = Field(1, ge=1)
    """Machines; there are nodes × nproc ranks, wherever Ray finds room for them."""
    address: str = ""
    """Address of a running cluster, such as ray://host:10001; unset: a cluster of this machine alone."""
    gpu: bool = False
    """Whether each rank takes a GPU."""


class _Cluster(_Ranks):
    """What a job asks of each machine of a cluster."""

    nodes: int = Field(1, ge=1)
    """Machines."""
    cpus: int | None = Field(None, ge=1)
    """Cores of each machine; unset: what the cluster gives."""
    memory_gib: int | None = Field(None, ge=1)
    """Main memory of each machine, GiB; unset: what the cluster gives."""


class SlurmLaunch(_Cluster):
    """As a batch job of Slurm."""

    type: Literal["slurm"] = "slurm"
    partition: str = Field("", pattern=r"^[\w.,-]*$")
    """Queue; unset: the cluster's own."""
    account: str = Field("", pattern=r"^[\w.-]*$")
    """Account that is charged; unset: the user's own."""
    time: str = Field("1-00:00:00", pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")
    """Longest run, [days-]hours:minutes:seconds; a job that is cut goes on when it is submitted again."""
    gpu: str = Field("", pattern=r"^(gpu(:[\w.-]+)?)?$")
    """Generic resource of which each rank takes one: gpu, or gpu:a100; unset: none."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines before the training, such as "module load cuda"."""


class KubernetesLaunch(_Cluster):
    """As an Indexed Job of Kubernetes."""

    type: Literal["kubernetes"] = "kubernetes"
    image: str = Field("", pattern=r"^\S*$")
    """Container image with Tanzim in it."""
    namespace: str = Field("default", pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    """Namespace of the job."""
    claim: str = Field("", pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")
    """Persistent volume claim with the data, where the run directory goes, too: the working folder."""
    gpu: str = Field("", pattern=r"^([\w.-]+/[\w.-]+)?$")
    """Resource of which each rank takes one, such as nvidia.com/gpu; unset: none."""


class SkyPilotLaunch(_Cluster):
    """As a task of SkyPilot, on any cloud."""

    type: Literal["skypilot"] = "skypilot"
    infra: str = ""
    """Where: aws, gcp/us-central1, k8s…; unset: the cheapest of the clouds that are set up."""
    gpu: str = Field("", pattern=r"^[\w.-]*$")
    """GPU of which each rank takes one, such as H100; unset: none."""
    spot: bool = False
    """Whether to take machines that may be taken back, at a lower price."""
    setup: list[str] = Field(default_factory=lambda: ['pip install "tanzim[train]"'])
    """Shell lines that install what the training needs."""


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``local`` where no type is given, so that ``launch.nproc=2`` works on its own."""
    return value.get("type", "local") if isinstance(value, dict) else getattr(value, "type", None)


LaunchConfig = Annotated[
    Annotated[LocalLaunch, Tag("local")]
    | Annotated[TorchrunLaunch, Tag("torchrun")]
    | Annotated[RayLaunch, Tag("ray")]
    | Annotated[SlurmLaunch, Tag("slurm")]
    | Annotated[KubernetesLaunch, Tag("kubernetes")]
    | Annotated[SkyPilotLaunch, Tag("skypilot")],
    Discriminator(_type),
]
