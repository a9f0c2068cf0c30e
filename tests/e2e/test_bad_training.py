"""Settings that no adapter should come out of: each is one clear error, and no folder of weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tanzim.core.config import load
from tanzim.core.errors import ConfigError, ModelError, TanzimError, TrainError, WrongBaseError
from tanzim.pipeline.chat import chat
from tanzim.pipeline.config import Config
from tanzim.pipeline.finetune import finetune


def train(root: Path, name: str, model: Path, rows: Path, **changes: Any) -> Path:
    """Train for a few steps; return the folder of the adapter."""
    settings: dict[str, Any] = {
        "name": name,
        "data.path": str(rows),
        "model.name": str(model),
        "runs_dir": str(root / "runs"),
        "train.max_steps": 6,
        "train.tokens_per_step": 256,
        "train.tokens_per_pass": 256,
    }
    assignments = [f"{key}={json.dumps(value)}" for key, value in (settings | changes).items()]
    return finetune(load(Config, None, assignments)).folder.adapter


BAD: dict[str, tuple[dict[str, Any], type[TanzimError], str]] = {
    "rank 0": ({"train.method.rank": 0}, ConfigError, r"train\.method\.rank: should be greater"),
    "alpha NaN": ({"train.method.alpha": float("nan")}, ConfigError, r"train\.method\.alpha"),
    "alpha infinite": ({"train.method.alpha": float("inf")}, ConfigError, r"train\.method\.alpha"),
    "unknown target": (
        {"train.method.target_modules": ["q_pro"]},
        ModelError,
        r"no linear layer 'q_pro'[^`]*nearest: q_proj",
    ),
    "zero steps": ({"train.max_steps": 0}, ConfigError, r"train\.max_steps: should be greater"),
    "learning rate 1e3": ({"train.learning_rate": 1e3}, ConfigError, r"train\.learning_rate: should be less"),
    "a learning rate that destroys the model": (
        {"train.learning_rate": 1.0, "train.warmup_steps": 0, "train.method.type": "full"},
        TrainError,
        "made the model worse",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=BAD)
def test_no_adapter_comes_out(case: str, tiny_model: Path, fruit_rows: Path, tmp_path: Path) -> None:
    changes, error, words = BAD[case]
    with pytest.raises(error, match=words) as raised:
        train(tmp_path, "bad", tiny_model, fruit_rows, **changes)
    assert raised.value.where
    assert not [*(tmp_path / "runs" / "bad").glob("adapter*"), *(tmp_path / "runs" / "bad").glob("model*")]


def test_an_adapter_of_another_base_is_refused(tiny_model: Path, fruit_rows: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    adapter = train(tmp_path, "good", base, fruit_rows)
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongBaseError, match="base"):
        list(chat(str(adapter.parent), "Which colour has apple?"))


def test_a_base_of_mixed_dtypes_trains_as_its_weights_in_one(
    tiny_model: Path, fruit_rows: Path, tmp_path: Path
) -> None:
    """Every other tensor in bfloat16: the adapter is that of the same numbers in float32, bit by bit."""
    adapters = []
    for name in ("mixed", "single"):
        base = tmp_path / name
        shutil.copytree(tiny_model, base)
        tensors = load_file(base / "model.safetensors")
        for key in sorted(tensors)[::2]:
            tensors[key] = tensors[key].to(torch.bfloat16)
            if name == "single":
                tensors[key] = tensors[key].float()
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
        adapters.append(load_file(train(tmp_path, name, base, fruit_rows) / "adapter_model.safetensors"))
    mixed, single = adapters
    assert mixed.keys() == single.keys()
    assert all(torch.equal(mixed[key], single[key]) for key in mixed)
    assert {value.dtype for value in mixed.values()} == {torch.float32}
