from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_train import documents, fit, lines, tiny_lora

from tanzim.adapters.method import Method
from tanzim.core.errors import RunError, TrainError
from tanzim.train import checkpoint
from tanzim.train.checkpoint import Checkpoints, State, finished_steps, load_weights


def some_run(folder: Path, **changes: Any) -> tuple[Checkpoints, dict[str, torch.nn.Parameter]]:
    torch.manual_seed(1)
    parameters = {
        "w": torch.nn.Parameter(torch.randn(3, 4)),
        "b": torch.nn.Parameter(torch.randn(4).double()),
        "still": torch.nn.Parameter(torch.randn(2)),
    }
    optimizer = torch.optim.AdamW(list(parameters.values())[::-1], fused=True)
    for _ in range(3):
        for name in ("w", "b"):
            parameters[name].grad = torch.randn_like(parameters[name])
        optimizer.step()
    settings: dict[str, Any] = {"identity": {"seed": 1, "train": {"rate": 2}}, "keep": 2} | changes
    method = Method(torch.nn.ParameterDict(parameters), base_hash="b" * 64, base_name="tiny")
    return Checkpoints(folder, method, optimizer, **settings), dict(method.parameters)


def test_everything_comes_back(tmp_path: Path) -> None:
    checkpoints, parameters = some_run(tmp_path)
    state = State(tokens_per_pass=64, step=3, best_loss=1.5, scaler={"scale": 2.0})
    random.seed(4)
    np.random.seed(5)
    np.random.standard_normal()  # leaves a second value waiting
    random.gauss(0, 1)
    checkpoints.save(state)
    weights = {name: p.detach().clone() for name, p in parameters.items()}
    moments = torch.optim.AdamW.state_dict(checkpoints.optimizer)
    drawn = (random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.rand(3).tolist())

    other, others = some_run(tmp_path)
    with torch.no_grad():
        for p in others.values():
            p.zero_()
    torch.rand(9)
    assert other.load(3) == state
    assert drawn == (random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.rand(3).tolist())
    for name, value in weights.items():
        assert torch.equal(others[name], value)
    again = other.optimizer.state_dict()
    assert again["param_groups"] == moments["param_groups"]
    assert again["state"].keys() == moments["state"].keys()
    for index, entry in moments["state"].items():
        for kind, value in entry.items():
            assert torch.equal(again["state"][index][kind], value)
            assert again["state"][index][kind].dtype == value.dtype


def test_latest_and_best_are_kept(tmp_path: Path) -> None:
    checkpoints, _ = some_run(tmp_path)
    for step in (2, 4, 6, 8, 10):
        checkpoints.save(State(tokens_per_pass=1, step=step, best_step=4 if step >= 4 else 2))
    assert checkpoints.steps() == [4, 8, 10]
    assert finished_steps(tmp_path) == [4, 8, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"checkpoint-{s}" for s in (4, 8, 10))


def test_leftovers_of_a_kill_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-7.abc").mkdir(parents=True)
    (tmp_path / "checkpoint-9").mkdir()
    checkpoints, _ = some_run(tmp_path)
    assert not (tmp_path / ".checkpoint-7.abc").exists()
    assert checkpoints.steps() == []


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoints, _ = some_run(tmp_path)
    checkpoints.save(State(tokens_per_pass=1, step=1))
    (tmp_path / "checkpoint-1" / "optimizer.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(RunError, match="cannot be read") as caught:
        checkpoints.load(1)
    assert "delete this folder" in str(caught.value.fix)


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    checkpoints, _ = some_run(tmp_path)
    checkpoints.save(State(tokens_per_pass=1, step=1))
    with pytest.raises(RunError, match=r"1 trained parameters differ.*still"):
        del checkpoints.method.parameters["still"]
        load_weights(checkpoints.method, checkpoints.path(1))


def test_another_identity_is_refused_by_name(tmp_path: Path) -> None:
    checkpoints, _ = some_run(tmp_path)
    checkpoints.save(State(tokens_per_pass=1, step=1))
    other, _ = some_run(tmp_path, identity={"seed": 1, "train": {"rate": 3}, "new": "x"})
    with pytest.raises(RunError, match=r"new was None and is 'x'; train.rate was 2 and is 3"):
        other.load(1)


def test_the_rehearsal_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoints, _ = some_run(tmp_path)
    written = checkpoints.rehearse(State(tokens_per_pass=1, step=1))
    assert list(tmp_path.iterdir()) == []
    checkpoints.save(State(tokens_per_pass=1, step=1))
    assert written == sum(file.stat().st_size for file in checkpoints.path(1).iterdir())


def test_the_rehearsal_notices_what_does_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file({name: t.clone().zero_() if name == "w" else t for name, t in tensors.items()}, path)

    monkeypatch.setattr(checkpoint, "save_file", lossy)
    checkpoints, _ = some_run(tmp_path)
    with pytest.raises(TrainError, match=r"does not read back as it was written: \['w'\] in weights"):
        checkpoints.rehearse(State(tokens_per_pass=1, step=1))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_save_of_the_result_is_seen_at_step_1(tmp_path: Path) -> None:
    class Broken(Method):
        def save(self, folder: Path) -> None:
            raise OSError(13, "Permission denied")

    broken = Broken(tiny_lora(), base_hash="b" * 64, base_name="tiny")
    with pytest.raises(TrainError, match=r"could not be written: .*Permission denied"):
        fit(tmp_path, prepared=broken)
    assert [line["step"] for line in lines(tmp_path, "train")] == [1]
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_training_and_saving_use_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"the network was used: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    fit(tmp_path, max_steps=3, save_steps=1)
    assert finished_steps(tmp_path / "run" / "checkpoints") == [2, 3]


def test_files_are_plain_safetensors_and_json(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=2, train_documents=documents(20))
    folder = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "optimizer.safetensors",
        "rng.safetensors",
        "trainer_state.json",
    }
    moments = load_file(folder / "optimizer.safetensors")
    for name, parameter in tiny_lora().named_parameters():
        if parameter.requires_grad:
            assert moments[f"{name}.exp_avg"].shape == parameter.shape
            assert moments[f"{name}.step"] == 2
    assert json.loads((folder / "trainer_state.json").read_text())["state"]["step"] == 2
