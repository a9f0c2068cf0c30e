"""The methods that are ours on a bfloat16 base under autocast follow their own float32 runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain_steps import SETTINGS
from tiny_train import documents, fit, lines, tiny_llama, tiny_method

METHODS: dict[str, dict[str, Any]] = {
    "dylora": {"type": "dylora", "rank": 4},
    "bitfit": {"type": "bitfit"},
    "bottleneck": {"type": "bottleneck", "size": 16},
    "spiel": {"type": "spiel", "density": 0.1, "growth_steps": 2, "regrow_steps": 4},
}


@pytest.mark.parametrize("kind", list(METHODS))
def test_bfloat16_follows_float32(kind: str, tmp_path: Path) -> None:
    losses = {}
    for name, dtype in (("wide", torch.float32), ("half", torch.bfloat16)):
        prepared = tiny_method(tiny_llama(dtype, initializer_range=0.3), **METHODS[kind])
        assert {value.dtype for value in prepared.parameters.values()} == {torch.float32}
        fit(
            tmp_path / name,
            prepared=prepared,
            method=METHODS[kind],
            train_documents=documents(20),
            autocast=torch.bfloat16 if name == "half" else None,
            **{**SETTINGS, "learning_rate": 3e-2, "max_steps": 8},
        )
        losses[name] = [line["loss"] for line in lines(tmp_path / name, "train")]
    assert losses["wide"][-1] < losses["wide"][0] - 0.1
    fallen = losses["wide"][0] - losses["wide"][-1]
    for wide, half in zip(losses["wide"], losses["half"], strict=True):
        assert half == pytest.approx(wide, abs=0.05 + 0.25 * fallen)
