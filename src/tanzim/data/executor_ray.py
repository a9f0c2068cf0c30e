"""The same work on Ray Data: on a cluster that runs already, else on processes of this machine.

The nodes of a cluster must see the run's folder under the same path. On one machine Ray talks over the
loopback address alone; it reports to nobody.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from tanzim.core.environ import environment
from tanzim.core.errors import DataError, TanzimError
from tanzim.core.optional import need
from tanzim.data.executor import Tell, cores, nobody

T = TypeVar("T")
R = TypeVar("R")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address, as on those systems
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",  # one worker for each core
}


class OnRay:
    """Workers of Ray.

    Args:
        workers: how many at the most on this machine; None takes one for each core. A cluster has its own.

    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or cores()
        self._stack = ExitStack()
        self._data: Any = None

    def _start(self) -> Any:  # noqa: ANN401 - the module ray.data
        if self._data is None:
            self._stack.enter_context(environment(_ENVIRONMENT))
            ray, data = need("ray", "ray"), need("ray.data", "ray")
            # RAY_ADDRESS names a cluster that runs already.
            far = "RAY_ADDRESS" in os.environ
            alone = {} if far else {"num_cpus": self._workers, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level="ERROR", **alone)
            self._stack.callback(ray.shutdown)
            context = data.DataContext.get_current()
            context.enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            self._data = data
        return self._data

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], tell: Tell = nobody
    ) -> Generator[tuple[int, R], None, None]:
        """Yield the number of each task and its result; what goes on inside of one, nodes do not tell.

        Raises:
            DataError: Ray gave up on a task.

        """
        del tell
        if not tasks:
            return
        data = self._start()
        exceptions = need("ray.exceptions", "ray")
        rows = [{"number": i, "work": pickle.dumps((function, task))} for i, task in enumerate(tasks)]
        results = data.from_items(rows, override_num_blocks=len(rows)).map(_work, num_cpus=1)
        try:
            for row in results.iter_rows():
                error, result = pickle.loads(row["result"])  # noqa: S301 - our own worker wrote it
                if error is not None:
                    raise error
                yield row["number"], result
        except exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            said = next((line for line in reversed(lines) if "Error: " in line), lines[0])
            raise DataError(
                f"Ray gave up: {said.strip()}",
                fix="see that all nodes have this version of tanzim and see the run's folder; "
                "what is done is kept, the same command goes on",
            ) from None

    def close(self) -> None:
        """Leave the cluster, or end the processes."""
        self._stack.close()
        self._data = None


def _work(row: dict[str, Any]) -> dict[str, Any]:
    """Do one task on a worker; an error for the user travels as a value, so that it arrives as it is."""
    function, task = pickle.loads(row["work"])  # noqa: S301 - the caller made it
    answer: tuple[TanzimError | None, Any]
    try:
        answer = (None, function(task))
    except TanzimError as error:
        answer = (error, None)
    return {"number": row["number"], "result": pickle.dumps(answer)}
