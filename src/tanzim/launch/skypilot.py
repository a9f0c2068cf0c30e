"""A run as a task of SkyPilot: the project's folder is copied to machines of any cloud."""

from __future__ import annotations

from tanzim.core.records import Json
from tanzim.launch.config import SkyPilotLaunch
from tanzim.launch.job import Job, train_command

CONFIG = "~/tanzim.yaml"


def task(job: Job, launch: SkyPilotLaunch) -> Json:
    """Return the task that ``sky launch`` takes.

    Args:
        job: the run; the first machine keeps its run directory.
        launch: what it asks of the cloud.

    """
    asked: Json = {
        "infra": launch.infra,
        "accelerators": launch.gpu and f"{launch.gpu}:{launch.nproc}",
        "cpus": launch.cpus and f"{launch.cpus}+",
        "memory": launch.memory_gib and f"{launch.memory_gib}+",
        "use_spot": launch.spot,
    }
    command = train_command(["tanzim"], CONFIG, launch, node_rank="$SKYPILOT_NODE_RANK", host="$HEAD")
    head = ['HEAD=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)'] if launch.nodes > 1 else []
    return {
        "name": job.label(),
        "num_nodes": launch.nodes,
        "resources": {name: value for name, value in asked.items() if value},
        "workdir": str(job.folder),
        # On its own: what .gitignore names, as runs/ often is, is not copied with the folder.
        "file_mounts": {CONFIG: str(job.config)},
        "setup": "\n".join(["set -e", *launch.setup]),
        "run": "\n".join(["set -e", *head, f"exec {command}"]),
    }
