"""The ranks of a run as workers of Ray Train (TorchTrainer), each of which runs the same entry."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tanzim.core.errors import TanzimError
from tanzim.core.optional import need
from tanzim.launch.blame import blame, hung
from tanzim.launch.config import RayLaunch
from tanzim.launch.heartbeat import beats, dump_stacks, forget, silent

POLL_SECONDS = 1.0


def run_on_ray(entry: Callable[[], None], folder: Path, config: RayLaunch, *, name: str) -> None:
    """Run ``entry`` on every rank of a Ray cluster, until all have ended.

    Args:
        entry: what a rank does; a function that can be pickled by its name. It finds its place by `place`.
        folder: the run's ``ranks/``.
        config: how many ranks, and where the cluster is.
        name: the run's name.

    Raises:
        TanzimError: a rank failed, was killed or hung; the message names it and its samples.
        MissingExtra: Ray is not installed.

    """
    # Before Ray is imported: no usage statistics, and workers that start in the project's folder.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_TRAIN_V2_ENABLED="1")
    ray, train, torch = need("ray", "ray"), need("ray.train", "ray"), need("ray.train.torch", "ray")
    folder.mkdir(parents=True, exist_ok=True)
    forget(folder, range(config.nproc * config.nodes))
    here = {} if config.address else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    ray.init(
        address=config.address or "local",
        log_to_driver=True,
        logging_level="warning",
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
        **here,
    )
    try:
        with _Watchdog(folder, config.heartbeat_seconds) as watchdog:
            trainer = torch.TorchTrainer(
                _in_folder(entry, os.getcwd()),
                scaling_config=train.ScalingConfig(
                    num_workers=config.nproc * config.nodes, use_gpu=config.gpu
                ),
                run_config=train.RunConfig(name=name, storage_path=str(folder.resolve() / "ray")),
            )
            try:
                trainer.fit()
            except train.TrainingFailedError as error:
                raise watchdog.hung or blame(beats(folder), [], folder) from error
    finally:
        ray.shutdown()


def _in_folder(entry: Callable[[], None], folder: str) -> Callable[[], None]:
    def run() -> None:
        os.chdir(folder)  # paths in a config start there
        entry()

    return run


class _Watchdog(threading.Thread):
    """Ends ranks of this machine that have hung; Ray then ends the job."""

    def __init__(self, folder: Path, limit: float) -> None:
        super().__init__(daemon=True)
        self.folder, self.limit = folder, limit
        self.hung: TanzimError | None = None
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            here = [beat for beat in beats(self.folder) if beat.host == socket.gethostname()]
            guilty = silent(here, self.limit, time.monotonic())
            if guilty:
                stacks = dump_stacks(self.folder, here)
                self.hung = hung(guilty, stacks, time.monotonic())
                for beat in guilty:
                    os.kill(beat.pid, 9)
                return

    def __enter__(self) -> _Watchdog:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()
