"""Let torch.compile make the kernels of the decoder layers, proven equal to the plain ones first.

torch.compile (Ansel et al. 2024, doi:10.1145/3620665.3640366) joins the element-wise work between two
products (norms, rotary positions, gates, residuals) into few passes over memory. Attention stays the call
it is: it divides a row by its documents, whose number and lengths change with every pass.

What is compiled is the forward pass of a layer's own class, with its backward pass, once for all layers:
below hooks and recomputation, so that a recomputed layer runs the same kernels twice, and without touching
a name that is saved. Evaluation and writing run the plain layers: each would be compiled anew. It takes the
place of the fast path of `fast`, which is written by hand for the CPU.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tanzim.adapters.fast import distance, trial
from tanzim.adapters.full import decoder_layers
from tanzim.core.errors import ConfigError, ModelError

KEY = "train.compile"
# Of loss and gradients on the trial, relative; in half precision, kernels keep digits that steps round off.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1


def compile_layers(model: Any, *, autocast: torch.dtype | None = None) -> str:  # noqa: ANN401 - any transformers model
    """Compile the layers of ``model`` in place, if they prove equal to what they were.

    Args:
        model: a causal model or an encoder, with or without an adapter, ready to be trained; its attention
            is hidden from the compiler (`tanzim.models.kernels.attention.hide_from_compiler`).
        autocast: precision of the products where it differs from the weights'.

    Returns:
        What was done, in a sentence for the log.

    Raises:
        ConfigError: there is no compiler here.
        ModelError: torch cannot compile these layers, or what it makes of them differs.

    """
    from torch._dynamo.exc import TorchDynamoException

    device = next(model.parameters()).device
    _refuse_without_compiler(device)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = list(decoder_layers(inner).values())
    random = _draws(model)
    with trial(model, layers[-1]) as run, torch.autocast(device.type, autocast, enabled=autocast is not None):
        want = run()
        for layer in layers:
            layer.__class__ = _compiled_class(type(layer))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's compiler uses what torch deprecates
                got = run()
        except TorchDynamoException as error:
            plain_layers(model)
            raise ModelError(
                f"torch.compile fails on {type(layers[0]).__name__}: {str(error).strip().splitlines()[0]}",
                where=KEY,
                fix="set it to false",
            ) from error
    if random:
        return (
            f"{len(layers)} layers are compiled (not compared with the plain ones: what they drop is random)."
        )
    difference = max(distance(ours, theirs) for ours, theirs in zip(got, want, strict=True))
    wide = want[-1].dtype in (torch.float32, torch.float64) and autocast is None
    if not difference <= (TOLERANCE if wide else HALF_TOLERANCE):
        plain_layers(model)
        raise ModelError(
            f"the compiled layers differ from the plain ones by {difference:.1e} on a trial",
            where=KEY,
            fix="set it to false",
        )
    return f"{len(layers)} layers are compiled (equal to the plain ones within {difference:.1e})."


def plain_layers(model: nn.Module) -> None:
    """Let the layers of ``model`` run as they were before `compile_layers`, if it was there."""
    for module in model.modules():
        if isinstance(module, CompiledLayer):
            module.__class__ = module.original


class CompiledLayer(nn.Module):
    """The compiled forward pass of a layer; stands before the layer's own class."""

    original: type

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the layer's interface
        """Run the layer's own forward pass, compiled for any number of tokens where it is trained."""
        if not (self.training and torch.is_grad_enabled()):
            plain: Tensor = super().forward(*args, **kwargs)
            return plain
        result: Tensor = _compiled(self.original)(self, *args, **kwargs)
        return result


@cache
def _compiled(original: Any) -> Any:  # noqa: ANN401 - a layer's class
    return torch.compile(original.forward, dynamic=True)


_CLASSES: dict[type, type] = {}


def _compiled_class(original: type) -> type:
    """Return the compiled class of a layer's class; transformers wraps its forward as that of any layer."""
    if original not in _CLASSES:
        name = f"Compiled{original.__name__}"
        _CLASSES[original] = type(name, (CompiledLayer, original), {"original": original})
    return _CLASSES[original]


def _draws(model: nn.Module) -> bool:
    """Tell whether a forward pass of training drops anything at random."""
    dropped = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    return dropped or any(getattr(module, "attention_dropout", 0) for module in model.modules())


def _refuse_without_compiler(device: torch.device) -> None:
    """Refuse a CPU without the C++ compiler that torch calls."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(name) is None:
        raise ConfigError(
            f"torch.compile needs a C++ compiler on the CPU, and '{name}' is not found",
            where=KEY,
            fix="install one (Debian: apt-get install g++), name it in CXX, or set train.compile to false",
        )
