"""Offloaded activations: gradients stay bit for bit, and every layer's input goes out and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_train import fit, lines, tiny_lora
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from tanzim.core.errors import ConfigError
from tanzim.core.records import Provenance
from tanzim.train import memory
from tanzim.train.batches import collate
from tanzim.train.config import TrainConfig
from tanzim.train.live import LiveMemory
from tanzim.train.memory import recompute_activations
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.tokens import Document

LAYERS, WIDTH, FLOAT = 2, 32, 4  # of the tiny model


class Counted(save_on_cpu):
    """torch's hooks, with the bytes that go through them and where they lie."""

    out: list[Tensor]
    back: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        pack, unpack = self.pack_hook, self.unpack_hook

        def counted_pack(tensor: Tensor) -> Any:
            packed = pack(tensor)
            assert packed[1].data_ptr() != tensor.data_ptr()  # a copy: the device could let its own go
            self.out.append(packed[1])
            return packed

        def counted_unpack(packed: Any) -> Tensor:
            tensor = unpack(packed)
            self.back.append(tensor)
            return tensor

        self.pack_hook, self.unpack_hook = counted_pack, counted_unpack


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    """Let the CPU stand for a device, and count what goes through the hooks."""
    Counted.out, Counted.back = [], []
    monkeypatch.setattr(memory, "save_on_cpu", Counted)
    monkeypatch.setattr(memory, "OFFLOADED_FROM", ("cpu",))
    return Counted


def gradients(*, offload: bool) -> dict[str, Tensor]:
    """Return the gradients of the tiny LoRA model on a row of three documents, 64 tokens in all."""
    model = tiny_lora()
    recompute_activations(model, offload=offload)
    rows = [
        Document(np.arange(length, dtype=np.int32), np.ones(length, np.float32), Provenance("x", 1))
        for length in (40, 17, 7)
    ]
    LanguageModel(model.train()).loss_sum(collate(rows)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_are_equal_bit_for_bit_and_the_layers_inputs_go_out_and_back(
    counted: type[Counted],
) -> None:
    plain = gradients(offload=False)
    assert not counted.out
    offloaded = gradients(offload=True)
    assert plain.keys() == offloaded.keys()
    assert len(plain) == LAYERS * 7 * 2  # A and B of every linear layer
    for name, value in plain.items():
        assert torch.equal(offloaded[name], value), name
    # One input of [64 tokens, width] for every layer: no weight, no logits, nothing from inside a layer.
    assert [tensor.nbytes for tensor in counted.out] == [64 * WIDTH * FLOAT] * LAYERS
    assert [tensor.nbytes for tensor in counted.back] == [64 * WIDTH * FLOAT] * LAYERS
    for out, back in zip(counted.out, reversed(counted.back), strict=True):  # the last layer comes first
        assert torch.equal(out, back)


def test_a_run_has_the_losses_of_the_same_run_without_it(tmp_path: Path, counted: type[Counted]) -> None:
    losses = {}
    for on in (False, True):
        root = tmp_path / str(on)
        fit(root, gradient_checkpointing=True, offload_activations=on, max_steps=3)
        losses[on] = [line["loss"] for line in lines(root, "train")]
        assert bool(counted.out) == on
    assert losses[True] == losses[False]
    assert sum(t.nbytes for t in counted.out) == sum(t.nbytes for t in counted.back)


def test_the_plan_counts_the_devices_memory_alone() -> None:
    with LiveMemory(torch.device("meta")) as live:
        kept = [torch.ones(1000), torch.ones(500, device="meta")]
    assert live.peak == 500 * FLOAT
    del kept


def test_elsewhere_than_on_cuda_it_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CUDA device to main memory; the model is on cpu") as caught:
        fit(tmp_path, gradient_checkpointing=True, offload_activations=True)
    assert caught.value.where == "train.offload_activations"
    assert caught.value.fix == "set it to false"
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set it to true as well"),
        ({"gradient_checkpointing": True, "optimizer": {"type": "mezo"}}, "keeps no activations"),
    ],
)
def test_where_there_is_nothing_to_offload_the_config_says_so(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig(offload_activations=True, **settings)
