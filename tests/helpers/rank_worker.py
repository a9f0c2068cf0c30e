"""One rank of a small training, as torchrun starts it: ``python -m rank_worker JOBS.json``.

Each job is a run of the engine on the same ranks: ``root``, ``strategy``, ``dtype``, ``dropout``, ``trouble``
(what goes wrong where), and settings of `tiny_train.fit`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "train"))
from tiny_train import fit, tiny_llama, tiny_method

from tanzim.core.errors import Interrupted, TanzimError
from tanzim.core.records import Json
from tanzim.launch.config import LocalLaunch
from tanzim.launch.heartbeat import failed
from tanzim.train.distributed import Replicated, join
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.ranks import Ranks
from tanzim.train.sharded import Sharded

PLAIN = LanguageModel.loss_sum


def main() -> int:
    """Run the jobs one after another on the same ranks."""
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[1]).parent / "ranks"
    first: Any = join(LocalLaunch(heartbeat_seconds=jobs[0].get("heartbeat", 60)), folder)
    for job in jobs:
        kind = {"ddp": Replicated, "fsdp": Sharded}[job.get("strategy", "ddp")]
        ranks = kind(first.place, first.heart) if first.world > 1 else Ranks()
        try:
            run(job, ranks)
        except Interrupted:
            if job.get("trouble", {}).get("kind") != "interrupt":
                raise
        except TanzimError as error:
            failed(folder, ranks.rank, error)
            print(f"error: {error}", file=sys.stderr)
            return 1
        ranks.wait()
    first.leave()
    return 0


def run(job: Json, ranks: Ranks) -> None:
    """Train one job."""
    dtype = getattr(torch, job.get("dtype", "float32"))
    method = job.get("method", {"type": "lora", "rank": 4}) | (
        {"dropout": job["dropout"]} if "dropout" in job else {}
    )
    prepared = tiny_method(tiny_llama(dtype), **method)
    ranks.shard(prepared)
    LanguageModel.loss_sum = troubled(job.get("trouble", {}), ranks)  # type: ignore[method-assign]
    fit(Path(job["root"]), prepared=prepared, ranks=ranks, method=method, **job["settings"])


def troubled(trouble: Json, ranks: Ranks) -> Any:
    """Return a loss that makes trouble of a kind, on one rank, at its training pass number ``at``."""
    seen = 0

    def loss_sum(self: LanguageModel, batch: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal seen
        if not trouble or not torch.is_grad_enabled() or ranks.rank != trouble["rank"]:
            return PLAIN(self, batch, **kwargs)
        seen += 1
        if seen == trouble["at"]:
            kind = trouble["kind"]
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "hang":
                time.sleep(600)
            elif kind == "nan":
                return PLAIN(self, batch, **kwargs) * float("nan")
            elif kind == "memory":
                raise torch.OutOfMemoryError("out of memory")
            elif kind == "interrupt":
                os.kill(os.getpid(), signal.SIGTERM)
        return PLAIN(self, batch, **kwargs)

    return loss_sum


if __name__ == "__main__":
    sys.exit(main())
