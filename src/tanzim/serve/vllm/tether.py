"""Holds vLLM on a tether: what it started ends with the server that asked for it, however that ends.

A program of its own, whose standard input is a pipe from the server. vLLM's engine and workers outlive its
web server where that is killed, and hold the GPU; so the whole group of processes is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time


def main(arguments: list[str]) -> None:
    """Run a command until it ends, or standard input does; then end every process of this group.

    Args:
        arguments: seconds that the command is given to end by itself, and the command.

    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the pipe alone tells; ignored ones, vLLM would inherit
    process = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_server, args=(process, float(arguments[0])), daemon=True).start()
    process.wait()
    os.killpg(0, signal.SIGKILL)


def _end_with_server(process: subprocess.Popen[bytes], grace: float) -> None:
    while os.read(0, 1):
        pass
    process.terminate()
    time.sleep(grace)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
