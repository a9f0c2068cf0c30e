"""torch.compile of the layers: the same training, the same names, and refusals before minutes are spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_train import fit, lines, tiny_method

from tanzim.adapters import compiled
from tanzim.adapters.compiled import CompiledLayer, compile_layers, plain_layers
from tanzim.core.errors import ConfigError, ModelError
from tanzim.core.records import Json
from tanzim.models.kernels.attention import hide_from_compiler
from tanzim.train.config import TrainConfig

FULL = {"type": "full"}
LORA = {"type": "lora", "rank": 4}


class Stopped(Exception):
    """The run was stopped from outside."""


def stop_after_three(line: Json) -> None:
    if line["kind"] == "train" and line["step"] == 4:
        raise Stopped


@pytest.fixture
def fresh() -> Iterator[None]:
    """Let nothing compiled for one model stand in the way of another."""
    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch deprecates
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("method", "settings"),
    [(LORA, {}), (FULL, {"gradient_checkpointing": True, "learning_rate": 1e-3})],
    ids=["lora", "full, recomputed"],
)
def test_compiled_layers_train_like_plain_ones(
    method: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []  # of the rows that compiled layers took
    make = compiled._compiled

    def counted(original: type) -> Any:
        def run(layer: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            lengths.append(hidden_states.shape[1])
            result: torch.Tensor = make(original)(layer, hidden_states, **kwargs)
            return result

        return run

    monkeypatch.setattr(compiled, "_compiled", counted)
    runs, files = {}, {}
    for on in (False, True):
        root, prepared = tmp_path / str(on), tiny_method(**method)
        names = list(prepared.model.state_dict())
        if on:
            hide_from_compiler()
            assert "2 layers are compiled (equal to the plain ones within" in compile_layers(prepared.model)
            assert sum(isinstance(m, CompiledLayer) for m in prepared.model.modules()) == 2
            assert list(prepared.model.state_dict()) == names
        # Passes of many lengths; stopped after the third step, and resumed.
        every: Any = {"max_steps": 5, "save_steps": 1, "compile": on, **settings}
        with pytest.raises(Stopped):
            fit(root, prepared=prepared, method=method, on_line=stop_after_three, **every)
        fit(root, prepared=prepared, method=method, **every)
        runs[on] = [line["loss"] for line in lines(root, "train") + lines(root, "eval")]
        (files[on],) = root.glob("run/*/*model.safetensors")
        plain_layers(prepared.model)
        assert not any(isinstance(m, CompiledLayer) for m in prepared.model.modules())
    assert len(set(lengths)) > 3
    assert runs[True] == pytest.approx(runs[False], rel=1e-5)
    ours, theirs = load_file(files[True]), load_file(files[False])
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = tiny_method(**LORA).model
    with pytest.raises(ConfigError, match="'no-such-compiler' is not found") as caught:
        compile_layers(model)
    assert "g++" in str(caught.value.fix)
    assert not any(isinstance(m, CompiledLayer) for m in model.modules())


def broken(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    plain: torch.Tensor = self.original.forward(self, hidden_states, **kwargs)
    return plain * 1.001


def failing(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    raise torch._dynamo.exc.TorchRuntimeError("no kernel for this\nand much more", None)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [(broken, r"differ from the plain ones by \d"), (failing, "LlamaDecoderLayer: no kernel for this\n")],
)
def test_kernels_that_differ_or_fail_are_not_trained_with(
    kernel: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_compiled", lambda original: kernel)
    method = tiny_method(**LORA)
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    with pytest.raises(ModelError, match=message) as caught:
        compile_layers(method.model)
    assert caught.value.where == "train.compile"
    assert not any(isinstance(m, CompiledLayer) for m in method.model.modules())
    for name, value in method.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": {"type": "dylora"}}, "draws a rank for every step"),
        ({"method": {"type": "prefix"}}, "into a cache"),
        ({"method": {"type": "hft"}}, "other weights in every round"),
        ({"method": {"type": "spiel"}}, "whole gradients"),
        ({"optimizer": {"type": "mezo"}}, "passes with gradients"),
        ({"objective": {"type": "classification"}}, "predict the next token"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_the_config(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig(compile=True, **settings)
