"""Adapter kinds that are ours: what they change in a model, for good or for a while.

A folder holds ``adapter_model.safetensors`` (the trained tensors under their names in the model),
``adapter_config.json`` (the method's settings) and ``tanzim.json``, whose ``method`` entry tells these
from peft's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from tanzim.adapters.heads import head_parameters
from tanzim.adapters.method import Method
from tanzim.adapters.store import save_own
from tanzim.core.errors import ModelError
from tanzim.core.records import Json


@dataclass(frozen=True, slots=True)
class Change:
    """One place in a model, and what stands there under an adapter.

    Args:
        owner: the module that holds the place.
        name: the place's name in it.
        value: a module, or the values of a parameter.

    """

    owner: nn.Module
    name: str
    value: nn.Module | Tensor

    def swap(self) -> Change:
        """Put the value there; return the change that undoes it."""
        if isinstance(self.value, nn.Module):
            before = self.owner._modules[self.name]
            assert before is not None
            self.owner._modules[self.name] = self.value
            return Change(self.owner, self.name, before)
        parameter = self.owner._parameters[self.name]
        assert parameter is not None
        # The parameter stays the same object, with other values: tied weights and hooks know it.
        kept = parameter.data
        parameter.data = self.value
        return Change(self.owner, self.name, kept)


@contextmanager
def standing(changes: Sequence[Change]) -> Iterator[None]:
    """Make ``changes`` inside the block."""
    undo = [change.swap() for change in changes]
    try:
        yield
    finally:
        for change in reversed(undo):
            change.swap()


class OwnMethod(Method):
    """A method whose adapter is saved in our own layout.

    Args:
        model: prepared; its trainable parameters are the adapter.
        config: the method's section.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    """

    def __init__(self, model: nn.Module, config: BaseModel, *, base_hash: str, base_name: str) -> None:
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self.config = config

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved, by name."""
        return {name: value.detach() for name, value in self.parameters.items()}

    def save(self, folder: Path) -> None:
        """Write the adapter, whole or not at all."""
        settings = self.config.model_dump(mode="json")
        save_own(folder, settings, self.tensors(), base_hash=self.base_hash, base_name=self.base_name)


@dataclass(frozen=True, slots=True)
class OwnAdapter:
    """A saved adapter of our own kinds, read.

    Args:
        settings: the method's section; its ``type`` tells the kind.
        tensors: what was trained, by its name in the model.
        folder: where it came from, for messages.

    """

    settings: Json
    tensors: Mapping[str, Tensor]
    folder: Path

    @torch.inference_mode(False)  # what is made during generation must serve gradients elsewhere, too
    @torch.no_grad()
    def changes(self, model: Any) -> list[Change]:  # noqa: ANN401 - any transformers model
        """Return what it changes in ``model``, which carries no adapter, without doing it.

        Raises:
            ModelError: it does not fit the model.

        """
        from tanzim.adapters import bitfit, bottleneck, spiel, whole  # they build on this file

        readers: dict[str, Callable[[Any, Json, Mapping[str, Tensor]], list[Change]]] = {
            "bitfit": bitfit.changes,
            "bottleneck": bottleneck.changes,
            "spiel": spiel.changes,
            "whole": whole.changes,
        }
        heads = {name: tuple(model.get_parameter(name).shape) for name in head_parameters(model)}
        try:
            fitting(heads, {name: value for name, value in self.tensors.items() if name in heads})
            rest = {name: value for name, value in self.tensors.items() if name not in heads}
            made = readers[self.settings["type"]](model, self.settings, rest)
        except KeyError as error:
            raise ModelError(f"the adapter's settings lack {error}", where=str(self.folder)) from error
        except ModelError as error:
            raise ModelError(error.what, where=str(self.folder), fix=error.fix) from error
        return made + [parameter_change(model, name, self.tensors[name]) for name in heads]


def freeze(model: nn.Module) -> None:
    """Let nothing of ``model`` be trained but a new head."""
    model.requires_grad_(False)
    for name in head_parameters(model):
        model.get_parameter(name).requires_grad_(True)


def parameter_change(model: nn.Module, name: str, value: Tensor) -> Change:
    """Return the change that gives the parameter ``name`` of ``model`` other values."""
    owner, _, last = name.rpartition(".")
    return Change(model.get_submodule(owner), last, value.to(model.get_parameter(name)))


def module_change(model: nn.Module, path: str, value: nn.Module) -> Change:
    """Return the change that puts another module in the place ``path`` of ``model``."""
    owner, _, last = path.rpartition(".")
    return Change(model.get_submodule(owner), last, value)


def fitting(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Check that every tensor has its place and every place its tensor.

    Raises:
        ModelError: one does not.

    """
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"{len(wrong)} tensors do not fit, the first: {name} is {found.get(name)} in the file and "
            f"{expected.get(name)} in the model"
        )
