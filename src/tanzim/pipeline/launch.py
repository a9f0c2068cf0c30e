"""From one command to many processes: start a run's ranks here, or write the job that does it elsewhere."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.errors import ConfigError
from tanzim.core.files import write_text
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.launch import kubernetes, skypilot, slurm
from tanzim.launch.config import (
    KubernetesLaunch,
    LaunchConfig,
    LocalLaunch,
    RayLaunch,
    SkyPilotLaunch,
    SlurmLaunch,
    TorchrunLaunch,
)
from tanzim.launch.job import Job, as_yaml
from tanzim.launch.local import run_ranks
from tanzim.launch.place import place
from tanzim.launch.ray import run_on_ray
from tanzim.pipeline.config import Config
from tanzim.pipeline.workspace import open_run

RANKS = "ranks"  # folder of a run: heartbeats, logs and stacks


def starts_ranks(launch: LaunchConfig) -> bool:
    """Tell whether this process is to start the ranks of ``launch``, and not to train itself."""
    return place() is None and not (isinstance(launch, LocalLaunch) and launch.nproc == 1)


def run_as_ranks(config: Config, *, overwrite: bool, reporter: Reporter) -> RunFolder:
    """Train a run on several processes, of this machine or of a Ray cluster.

    Args:
        config: the project.
        overwrite: delete an existing run of that name first.
        reporter: takes each line that a rank prints.

    Returns:
        The run directory; on another machine than the first it holds no result.

    Raises:
        ConfigError: this kind of launch is for another place.
        TanzimError: a rank failed, was killed or hung; the message names it and its samples.

    """
    launch = config.launch
    if isinstance(launch, SlurmLaunch | KubernetesLaunch | SkyPilotLaunch):
        raise ConfigError(
            f"launch.type is {launch.type}, which trains somewhere else",
            where="launch.type",
            fix="tanzim launch writes its job; launch.type=local trains here",
        )
    first = not isinstance(launch, TorchrunLaunch) or launch.node_rank == 0
    folder = open_run(config, overwrite=overwrite and first)
    ranks = folder.path / RANKS
    if isinstance(launch, RayLaunch):
        from tanzim.pipeline.rank import ray_worker

        work = functools.partial(ray_worker, str(folder.path))
        run_on_ray(work, ranks, launch, name=config.name, write=reporter.say)
    else:
        module = ["tanzim.pipeline.rank", str(folder.path)]
        run_ranks(module, ranks, launch, name=config.name, write=reporter.say)
    return folder


@dataclass(frozen=True, slots=True)
class Written:
    """A job for another place.

    Args:
        text: what it says.
        path: the file it was written to.
        submit: the command that submits it.

    """

    text: str
    path: Path
    submit: str


def launch_job(config: Config, *, write: bool = True) -> Written:
    """Write the job that trains ``config`` on a cluster.

    Args:
        config: the project; ``launch.type`` says which cluster.
        write: whether to make the run directory and write the job into it; otherwise only its text is made.

    Raises:
        ConfigError: ``launch.type`` is no cluster's, or a key it needs is missing.
        RunError: a run of that name was made with other settings.

    """
    folder = RunFolder(Path(config.runs_dir) / config.name)
    text = as_yaml([json.loads(config.model_dump_json())])
    wanted = Job(config.name, Path.cwd(), folder.config.resolve(), text)
    launch = config.launch
    if isinstance(launch, SlurmLaunch):
        name, submit, spec = "job.sh", "sbatch", slurm.batch_script(wanted, launch)
    elif isinstance(launch, KubernetesLaunch):
        name, submit = "job.yaml", "kubectl apply -f"
        spec = as_yaml(kubernetes.manifests(wanted, launch))
    elif isinstance(launch, SkyPilotLaunch):
        name, submit = "task.yaml", "sky launch"
        spec = as_yaml([skypilot.task(wanted, launch)])
    else:
        raise ConfigError(
            f"launch.type is {launch.type}, which needs no job",
            where="launch.type",
            fix="tanzim train; or set launch.type to slurm, kubernetes or skypilot",
        )
    path = folder.path / name
    if write:
        open_run(config)
        write_text(path, spec)
    return Written(spec, path, f"{submit} {path}")
