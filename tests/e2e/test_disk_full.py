"""A disk that fills up during a save keeps the previous checkpoint, and the run goes on from it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "train"))
from tiny_train import fit, lines, tiny_lora

from helpers.disk import fill, small_disk_at
from tanzim.core.errors import TrainError
from tanzim.train.checkpoint import Checkpoints

SETTINGS: dict[str, Any] = {"epochs": 3, "save_steps": 2, "eval_steps": 2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of its own, of 4 MB."""
    with small_disk_at(tmp_path / "disk") as disk:
        yield disk


def expect_same_as_uninterrupted(root: Path, plain: Path) -> None:
    for kind in ("train", "eval"):
        assert lines(root, kind) == lines(plain, kind)
    name = "run/adapter/adapter_model.safetensors"
    ours, theirs = load_file(root / name), load_file(plain / name)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("checked", [True, False], ids=["seen before", "seen while writing"])
def test_full_disk_keeps_the_previous_checkpoint(
    checked: bool, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 5:
            fill(small_disk, leave=48_000)

    with monkeypatch.context() as patch:
        if not checked:
            patch.setattr(Checkpoints, "_check_space", lambda self, needed: None)
        with pytest.raises(TrainError, match=r"checkpoint of step 6 .* could not be written") as caught:
            fit(small_disk, on_line=fill_up, **SETTINGS)
    assert "resumes from checkpoint-4" in str(caught.value.fix)
    checkpoints = small_disk / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    for file in checkpoints.glob("*/*.safetensors"):
        assert load_file(file)

    (small_disk / "ballast").unlink()
    fit(small_disk, **SETTINGS)
    fit(tmp_path, **SETTINGS)
    expect_same_as_uninterrupted(small_disk, tmp_path)


def test_a_write_that_fails_half_way_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """The same without a file system of its own: the kernel refuses files beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with pytest.raises(TrainError, match=r"checkpoint of step 6 .* could not be written"):
            fit(tmp_path / "cut", on_line=limit, **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    names = sorted(path.name for path in (tmp_path / "cut/run/checkpoints").iterdir())
    assert names == ["checkpoint-2", "checkpoint-4"]
    fit(tmp_path / "cut", **SETTINGS)
    fit(tmp_path / "plain", **SETTINGS)
    expect_same_as_uninterrupted(tmp_path / "cut", tmp_path / "plain")


def test_a_disk_too_small_from_the_start_is_seen_at_step_1(small_disk: Path) -> None:
    fill(small_disk, leave=64_000)
    with pytest.raises(TrainError, match=r"checkpoint of step 1 .* could not be written") as caught:
        fit(small_disk, model=tiny_lora(), tokens_per_step=128, epochs=50)
    assert "starts from the beginning" in str(caught.value.fix)


def test_full_disk_for_metrics_is_a_clear_error(small_disk: Path) -> None:
    def fill_up(line: dict[str, Any]) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            fill(small_disk, leave=0)

    with pytest.raises(TrainError, match=r"cannot be written|could not be written"):
        fit(small_disk, on_line=fill_up, epochs=20, eval_steps=50)
