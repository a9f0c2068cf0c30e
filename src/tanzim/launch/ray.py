"""The ranks of a run as workers of Ray Train (TorchTrainer), each of which runs the same entry.

A worker prints to ``ranks/rank-<n>.log``, since Ray would mix in what its own processes have to say.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tanzim.core.environ import environment
from tanzim.core.errors import TanzimError
from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.launch.blame import blame, hung
from tanzim.launch.config import RayLaunch
from tanzim.launch.heartbeat import beats, dump_stacks, forget, silent
from tanzim.launch.tail import Tail

POLL_SECONDS = 0.5
# The loopback address (as on the systems in its name), no usage statistics, no second copy of each line, and
# no warning of a change in how GPUs are hidden.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def run_on_ray(
    entry: Callable[[], None],
    folder: Path,
    config: RayLaunch,
    *,
    name: str,
    write: Callable[[str], None] = print,
) -> None:
    """Run ``entry`` on every rank of a Ray cluster, until all have ended.

    Args:
        entry: what a rank does; a function that can be pickled by its name. It finds its place by `place`.
        folder: the run's ``ranks/``.
        config: how many ranks, and where the cluster is.
        name: the run's name.
        write: takes each line that a rank prints here, with the rank before it.

    Raises:
        TanzimError: a rank failed, died or hung; the message names it and its samples.
        MissingExtra: Ray is not installed.

    """
    world = config.nproc * config.nodes
    folder.mkdir(parents=True, exist_ok=True)
    forget(folder, range(world))
    with environment(ENVIRONMENT):
        ray, train, torch = need("ray", "ray"), need("ray.train", "ray"), need("ray.train.torch", "ray")
        _connect(ray, config)
        try:
            with _Watchdog(folder, config.heartbeat_seconds, Tail(write), world) as watchdog:
                trainer = torch.TorchTrainer(
                    _in_folder(entry, os.getcwd()),
                    scaling_config=train.ScalingConfig(num_workers=world, use_gpu=config.gpu),
                    run_config=train.RunConfig(name=name, storage_path=str(folder.resolve() / "ray")),
                )
                try:
                    trainer.fit()
                except train.TrainingFailedError as error:
                    raise watchdog.hung or _blame(error, folder) from error
        finally:
            ray.shutdown()


def _blame(error: Exception, folder: Path) -> TanzimError:
    """Return what ended the job; ranks that could still speak have written it themselves."""
    found = beats(folder)
    died = list(getattr(error, "worker_failures", {}))
    died = died or [beat.rank for beat in found if beat.phase == "working"]
    return blame(found, [{"rank": rank, "exitcode": None} for rank in died], folder)


def _connect(ray: Any, config: RayLaunch) -> None:  # noqa: ANN401 - the package
    own: Json = {"_node_ip_address": "127.0.0.1", "num_cpus": config.nproc + 1, "include_dashboard": False}
    ray.init(
        address=config.address or "local",
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
        **({} if config.address else own),
    )


def _in_folder(entry: Callable[[], None], folder: str) -> Callable[[], None]:
    def run() -> None:
        os.chdir(folder)  # paths in a config start there
        entry()

    return run


class _Watchdog(threading.Thread):
    """Passes on what ranks print, and ends those of this machine that have hung; Ray then ends the job."""

    def __init__(self, folder: Path, limit: float, tail: Tail, world: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.limit, self.tail, self.world = folder, limit, tail, world
        self.hung: TanzimError | None = None
        self._over = threading.Event()

    def run(self) -> None:
        """Look and pass on until the job is over."""
        while not self._over.wait(POLL_SECONDS):
            self._pass_on()
            if self.hung is None:
                self._look()
        self._pass_on()

    def _pass_on(self) -> None:
        logs = {self.folder / f"rank-{rank}.log": rank for rank in range(self.world)}
        self.tail.read({path: rank for path, rank in logs.items() if path.is_file()})

    def _look(self) -> None:
        here = [beat for beat in beats(self.folder) if beat.host == socket.gethostname()]
        guilty = silent(here, self.limit, time.monotonic())
        if guilty:
            stacks = dump_stacks(self.folder, here)
            self.hung = hung(guilty, stacks, time.monotonic())
            for beat in guilty:
                with suppress(ProcessLookupError):
                    os.kill(beat.pid, signal.SIGKILL)

    def __enter__(self) -> _Watchdog:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()
