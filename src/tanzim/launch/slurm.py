"""A run as a batch job of Slurm. Its machines share the project's folder, as is usual there."""

from __future__ import annotations

import shlex
import sys

from tanzim.launch.config import SlurmLaunch
from tanzim.launch.job import Job, train_command


def batch_script(job: Job, launch: SlurmLaunch) -> str:
    """Return the script that ``sbatch`` takes.

    Args:
        job: the run.
        launch: what it asks of the cluster.

    """
    options: dict[str, object] = {
        "job-name": job.label(),
        "nodes": launch.nodes,
        "ntasks-per-node": 1,
        "time": launch.time,
        "chdir": job.folder,
        "output": job.config.parent / "slurm-%j.log",
        # The ranks finish their step and save it; the scheduler's own notice is shorter than a step may be.
        "signal": "TERM@300",
    }
    asked = {
        "partition": launch.partition,
        "account": launch.account,
        "cpus-per-task": launch.cpus,
        "mem": launch.memory_gib and f"{launch.memory_gib}G",
        "gres": launch.gpu and f"{launch.gpu}:{launch.nproc}",
    }
    options |= {name: value for name, value in asked.items() if value}
    command = train_command(
        [sys.executable, "-m", "tanzim"],
        shlex.quote(str(job.config)),
        launch,
        node_rank="$SLURM_NODEID",
        host="$HEAD",
    )
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items()),
        "set -eu",
        *launch.setup,
    ]
    if launch.nodes > 1:
        lines += ['HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)', "export HEAD"]
    # A shell on each machine, where its number is known.
    return "\n".join([*lines, f"srun bash -c {shlex.quote('exec ' + command)}"]) + "\n"
