"""Reads documents in a process of its own: started by `contained`, spoken to in lines of JSON.

A request is one line (path, kind, options, megabytes, seconds); the answer is a line for each part, and a
last one that says ``end``, or what is wrong.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

from tanzim.core.errors import ConfigError, MissingExtra, TanzimError
from tanzim.data.ingest.documents.blocks import Block, Fault, Part
from tanzim.data.ingest.documents.parts import Options, read_parts


def _bound(megabytes: int, seconds: int) -> None:
    """Let the system stop this process if it takes too much, even when nobody waits for it any more."""
    try:
        import resource
    except ImportError:  # Windows has no such limits; the parent still keeps the time
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        resource.RLIMIT_AS: megabytes << 20,
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + seconds + 1,
    }
    for which, soft in wanted.items():
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _line(part: Part) -> list[Any]:
    kind = "block" if isinstance(part, Block) else "fault" if isinstance(part, Fault) else "cells"
    return [kind, *astuple(part)]


def main() -> None:
    """Answer requests until there are none."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    os.dup2(2, 1)  # what a parser prints must not stand among the answers
    for request in sys.stdin:
        task = json.loads(request)
        _bound(task["megabytes"], task["seconds"])
        options = Options(**{**task["options"], "sheets": tuple(task["options"]["sheets"])})
        last: list[Any] = ["end"]
        try:
            for part in read_parts(Path(task["path"]), task["kind"], options):
                out.write(json.dumps(_line(part)) + "\n")
        except MissingExtra as error:
            last = ["missing", error.what, error.fix]
        except ConfigError as error:
            last = ["config", error.what, error.where]
        except TanzimError as error:
            last = ["wrong", error.what, error.fix]
        except MemoryError:
            last = ["wrong", "the document takes too much memory to read", "leave it out"]
        out.write(json.dumps(last) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
