"""Ranks that saw different documents move the same places of SpIEL's matrices: those of the first rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "train"))
from tiny_train import tiny_method

from tanzim.adapters.sparse import Growth
from tanzim.adapters.spiel import Spiel

pytestmark = pytest.mark.slow


def moved(seed: int | None) -> Any:
    """Move places after gradients drawn from ``seed`` (None: this rank has had none)."""
    method = tiny_method(type="spiel", density=0.05, growth_steps=2, regrow_steps=2)
    assert isinstance(method, Spiel)
    generator = torch.Generator().manual_seed(seed or 0)
    for layer in method.layers.values():
        layer.delta.data.normal_(generator=torch.Generator().manual_seed(9))
        if seed is not None:
            layer.growth = Growth()
            size = len(layer.places)
            gradient = torch.randn(layer.base_layer.weight.numel(), generator=generator)
            layer.growth.watch(gradient, size, first=True)
            layer.growth.count()
    method.after_step(3, 10)
    return {path: layer.places.clone() for path, layer in method.layers.items()}


# What each of two ranks saw.
SEEDS: list[tuple[int | None, int | None]] = [(1, 2), (1, None), (None, 2)]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save([moved(seeds[rank]) for seeds in SEEDS], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree(tmp_path: Path) -> None:
    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    still = moved(None)
    for index, seeds in enumerate(SEEDS):
        alone = moved(seeds[0])
        for path, places in alone.items():
            assert torch.equal(both[0][index][path], places)
            assert torch.equal(both[1][index][path], places)
        assert seeds[0] is None or any(not torch.equal(value, still[path]) for path, value in alone.items())
