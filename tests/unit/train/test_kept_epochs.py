"""The adapters of the last epochs: what they hold, how many stay, and that a resumed run leaves the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_train import VOCABULARY, fit, lines, tiny_llama

from tanzim.core.errors import Interrupted
from tanzim.core.records import Json
from tanzim.core.run import RunFolder
from tanzim.train.config import TrainConfig

FOUR = {"epochs": 4.0, "tokens_per_step": 512, "tokens_per_pass": 512, "keep_checkpoints": 9}


def ends_of_epochs(root: Path) -> list[int]:
    """Return the steps after which an epoch was over, as the metrics tell."""
    steps = [(line["step"], line["epoch"]) for line in lines(root, "train")]
    return [step for step, epoch in steps if abs(epoch - round(epoch)) < 1e-9]


def kept(root: Path, step: int) -> dict[str, torch.Tensor]:
    saved = load_file(RunFolder(root / "run").epoch(step) / "adapter_model.safetensors")
    return {name.replace(".weight", ".default.weight"): value for name, value in saved.items()}


@pytest.mark.parametrize(("settings", "file"), [({}, "weights"), ({"ema_decay": 0.8}, "ema")])
def test_they_are_the_weights_of_their_steps(tmp_path: Path, settings: dict[str, float], file: str) -> None:
    fit(tmp_path, keep_epochs=3, **FOUR, **settings)
    folder = RunFolder(tmp_path / "run")
    steps = folder.epoch_steps()
    assert steps == ends_of_epochs(tmp_path)[-3:]
    assert len({tuple(kept(tmp_path, step)) for step in steps}) == 1
    for step in steps:
        saved = load_file(folder.checkpoints / f"checkpoint-{step}" / f"{file}.safetensors")
        written = kept(tmp_path, step)
        assert saved.keys() == written.keys()
        for name, value in saved.items():
            assert torch.equal(written[name], value.to(written[name].dtype))
    first, last = (kept(tmp_path, step) for step in (steps[0], steps[-1]))
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_plain_peft_opens_them(tmp_path: Path) -> None:
    fit(tmp_path, keep_epochs=2, **FOUR)
    folder = RunFolder(tmp_path / "run")
    ids = torch.arange(12)[None] % VOCABULARY
    outputs = []
    for path in (
        folder.epoch(folder.epoch_steps()[0]),
        folder.epoch(folder.epoch_steps()[1]),
        folder.adapter,
    ):
        model = PeftModel.from_pretrained(tiny_llama(attn_implementation="eager"), str(path)).eval()
        with torch.no_grad():
            outputs.append(model(ids).logits)
    assert not torch.equal(outputs[0], outputs[1])
    assert (folder.epoch(folder.epoch_steps()[0]) / "tanzim.json").is_file()


def test_none_stay_unless_asked_for_nor_of_a_whole_model(tmp_path: Path) -> None:
    assert TrainConfig().keep_epochs == 0
    fit(tmp_path / "plain", **FOUR)
    assert RunFolder(tmp_path / "plain" / "run").epoch_steps() == []
    fit(tmp_path / "full", model=tiny_llama(), method={"type": "full"}, keep_epochs=2, **FOUR)
    assert RunFolder(tmp_path / "full" / "run").epoch_steps() == []


def test_a_resumed_run_leaves_the_same(tmp_path: Path) -> None:
    fit(tmp_path / "whole", keep_epochs=2, **FOUR)
    steps = RunFolder(tmp_path / "whole" / "run").epoch_steps()

    def interrupt(line: Json) -> None:
        if line["kind"] == "train" and line["step"] == steps[0] + 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", keep_epochs=2, on_line=interrupt, **FOUR)
    assert RunFolder(tmp_path / "cut" / "run").epoch_steps()[-1] == steps[0]
    fit(tmp_path / "cut", keep_epochs=2, **FOUR)
    assert RunFolder(tmp_path / "cut" / "run").epoch_steps() == steps
    for step in steps:
        again = kept(tmp_path / "cut", step)
        assert all(torch.equal(value, again[name]) for name, value in kept(tmp_path / "whole", step).items())
