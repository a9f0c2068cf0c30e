"""Ranks that each hold the whole model (data parallel), and how a process joins its group.

The gradients of a step are summed by ourselves, in flat buckets after the last pass, and not by torch's
DistributedDataParallel: that one hooks into the forward pass of the whole model, which the loss here goes
around (`objective`); it wants as many passes on every rank; and it divides by the number of ranks. What is
given up is the overlap of the sum with the backward pass, little where adapters are trained.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from tanzim.core.errors import TrainError
from tanzim.core.records import Json
from tanzim.core.seeds import derive
from tanzim.launch.blame import LostRank
from tanzim.launch.config import LaunchConfig
from tanzim.launch.heartbeat import Heartbeat, Phase
from tanzim.launch.place import Place, place
from tanzim.train.ranks import Parameters, Ranks, divide
from tanzim.train.tokens import Document

BUCKET_BYTES = 64 * 2**20  # summed at once: enough for full speed, little beside the gradients
PATIENCE = timedelta(days=7)  # for what one rank does while the others wait: data, tokens, the base
LIMITS = 3  # a collective's time, in heartbeat limits: after the watchdogs, whose message says more


def join(launch: LaunchConfig, folder: Path) -> Ranks:
    """Join the other ranks of this job, if there are any.

    Args:
        launch: strategy, and how long a rank may be silent.
        folder: the run's ``ranks/``.

    Raises:
        TrainError: there are more ranks than GPUs.

    """
    here = place()
    if here is None or here.world == 1:
        return Ranks()
    from tanzim.train.sharded import Sharded

    heart = Heartbeat(folder, here.rank)
    if torch.cuda.is_available():
        if here.local_rank >= torch.cuda.device_count():
            raise TrainError(
                f"there are {torch.cuda.device_count()} GPUs for {here.local_rank + 1} ranks and more",
                where="launch.nproc",
                fix="use one rank for each GPU, or model.device=cpu",
            )
        torch.cuda.set_device(here.local_rank)
    if not dist.is_initialized():  # Ray Train has done it
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            timeout=timedelta(seconds=LIMITS * launch.heartbeat_seconds),
        )
    return {"ddp": Replicated, "fsdp": Sharded}[launch.strategy](here, heart)


class Replicated(Ranks):
    """One of several ranks with the whole model each.

    Args:
        here: which one.
        heart: where it beats.

    """

    def __init__(self, here: Place, heart: Heartbeat) -> None:
        self.place = here
        self.rank, self.world = here.rank, here.world
        self.heart = heart
        self.device = torch.device("cuda" if "nccl" in dist.get_backend_config() else "cpu")
        self._patient = dist.new_group(timeout=PATIENCE, backend="gloo")

    def shares(self, lengths: npt.NDArray[np.int64]) -> list[list[int]]:
        """Divide documents of these lengths among the ranks."""
        return divide(lengths, self.world)

    def beat(
        self, phase: Phase, step: int | None = None, documents: Sequence[Document] | None = None
    ) -> None:
        """Say what this rank is about to do."""
        named = None if documents is None else [str(document.provenance) for document in documents]
        self.heart.beat(phase, step, named)

    @contextmanager
    def drawing(self, seed: int, step: int) -> Iterator[None]:
        """Draw from a seed of this rank and step, so that a resumed run draws alike."""
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive(seed, "rank", self.rank, step))
            yield

    def sum(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over the ranks, in float64."""
        total = torch.tensor(values, dtype=torch.float64)
        self._together(lambda: dist.all_reduce(total))
        return tuple(total.tolist())

    def check(self, optimizer: str, *, averaged: bool) -> None:
        """Refuse LOMO, which steps before the ranks could sum a gradient."""
        if optimizer == "lomo":
            raise TrainError(
                "lomo steps in the middle of the backward pass, before the ranks could sum a gradient",
                where="train.optimizer.type",
                fix="train on one process, or set train.optimizer.type to mini_batch",
            )

    def least(self, value: int) -> int:
        """Return the least value of any rank."""
        return self._extreme([value], dist.ReduceOp.MIN)[0]

    def same(self, value: Json) -> Json:
        """Return the first rank's value, as JSON holds it."""
        text = np.frombuffer(json.dumps(value).encode(), np.uint8).copy()
        length = torch.tensor([len(text)])
        self._together(lambda: dist.broadcast(length, 0))
        letters = torch.from_numpy(text) if self.first else torch.zeros(int(length), dtype=torch.uint8)
        self._together(lambda: dist.broadcast(letters, 0))
        found: Json = json.loads(letters.numpy().tobytes())
        return found

    def tensors(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the first rank's tensors, on the CPU."""
        forms = {name: [str(t.dtype), list(t.shape)] for name, t in named.items()} if self.first else {}
        found = {}
        for name, (dtype, shape) in self.same(forms).items():
            kind = getattr(torch, dtype.removeprefix("torch."))
            whole = named[name].cpu().contiguous() if self.first else torch.empty(shape, dtype=kind)
            self._broadcast(whole)
            found[name] = whole
        return found

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first rank do the block, then one of each other machine, then all others."""
        turn = 0 if self.first else 1 if self.place.local_rank == 0 else 2
        for now in range(3):
            if now == turn:
                yield
            self.wait()

    def wait(self) -> None:
        """Wait until all ranks are here, however long that takes."""
        self._together(lambda: dist.barrier(self._patient))

    def check_alike(self, identity: Json, parameters: Parameters) -> None:
        """Refuse ranks with other data, settings or trained weights than the first one's."""
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
        for name, parameter in parameters.items():
            # The sum of what the bits stand for: equal for equal weights, at little cost.
            digest.update(f"{name} {float(self.local(parameter).double().sum())}".encode())
        number = int.from_bytes(digest.digest()[:7])
        numbers = (
            self._extreme([number], dist.ReduceOp.MIN)[0],
            self._extreme([number], dist.ReduceOp.MAX)[0],
        )
        if not self.together and numbers[0] != numbers[1]:
            raise TrainError(
                "the ranks do not agree on data, config or weights",
                where=f"rank {self.rank}",
                fix="give every machine the same data file, model and version of Tanzim",
            )

    def sum_gradients(self, parameters: Parameters) -> None:
        """Replace every gradient by its sum over the ranks; one that no rank has stays None."""
        own = [parameter for parameter in parameters.values() if self.is_own(parameter)]
        has = self._extreme([int(p.grad is not None) for p in own], dist.ReduceOp.MAX) if own else []
        buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter, there in zip(own, has, strict=True):
            if there:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                buckets.setdefault((parameter.dtype, parameter.device), []).append(parameter.grad)
        for gradients in buckets.values():
            for bucket in _filled(gradients, BUCKET_BYTES):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                self._together(functools.partial(dist.all_reduce, flat))
                parts = torch.split(flat, [gradient.numel() for gradient in bucket])
                for gradient, summed in zip(bucket, parts, strict=True):
                    gradient.copy_(summed.view_as(gradient))
        self.beat("working")

    def leave(self) -> None:
        """Part from the other ranks."""
        self.beat("finishing" if self.first else "done")
        dist.destroy_process_group()

    def is_own(self, parameter: Tensor) -> bool:
        """Whether this rank holds the whole of ``parameter``, and sums its gradient itself."""
        return True

    def local(self, tensor: Tensor) -> Tensor:
        """Return what this rank holds of ``tensor``."""
        return tensor.detach()

    def _broadcast(self, whole: Tensor) -> None:
        # gloo knows no unsigned or half types of some kinds; bytes it knows.
        letters = whole.reshape(-1).view(torch.uint8)
        if letters.numel():
            self._together(lambda: dist.broadcast(letters, 0))

    def _extreme(self, values: Sequence[int], operation: dist.ReduceOp.RedOpType) -> list[int]:
        found = torch.tensor(values, dtype=torch.int64)
        self._together(lambda: dist.all_reduce(found, operation))
        return [int(value) for value in found.tolist()]

    def _together(self, collective: Callable[[], object]) -> None:
        """Do what all ranks do together.

        Raises:
            LostRank: another rank is gone.

        """
        if self.heart.beat_now.phase == "working":
            self.beat("waiting")
        try:
            collective()
        except RuntimeError as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise LostRank(f"the other ranks cannot be reached: {first}") from error


def _filled(tensors: Sequence[Tensor], capacity: int) -> Iterator[list[Tensor]]:
    """Group tensors, in their order, into buckets of about ``capacity`` bytes."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        bucket.append(tensor)
        held += tensor.nbytes
        if held >= capacity:
            yield bucket
            bucket, held = [], 0
    if bucket:
        yield bucket
