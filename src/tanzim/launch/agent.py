"""Runs torchrun in this process, and writes down in numbers how each rank ended.

``python -m tanzim.launch.agent OUTCOME.json TORCHRUN-ARGUMENTS…``: torchrun itself would only print it.
SIGHUP ends the job at once. SIGTERM and SIGINT, which a scheduler may send to all processes of a job, are
for the ranks alone, which finish their step.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from tanzim.core.files import write_json


def main() -> int:
    """Run the ranks; return 0 if all ended well."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _pass)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        run(parse_args(sys.argv[2:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failures = [
            {"rank": rank, "pid": failure.pid, "exitcode": failure.exitcode}
            for rank, failure in error.failures.items()
        ]
        write_json(Path(sys.argv[1]), failures)
        return 1
    except SignalException:
        return 1
    return 0


def _pass(number: int, frame: FrameType | None) -> None:
    """Take no notice; unlike SIG_IGN, this is not handed down to the ranks."""


def _end_with(parent: int) -> None:
    """End this job when whoever launched it is gone, however that happened."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGHUP)


if __name__ == "__main__":
    sys.exit(main())
