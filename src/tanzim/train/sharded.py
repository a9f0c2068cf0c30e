"""Ranks that divide the decoder layers among them: torch's FSDP2 (`fully_shard`, PyTorch ≥ 2.6).

Zhao et al. 2023, arXiv:2304.11277: each rank keeps 1/world of every layer's weights, gradients and moments;
a layer is put together for its forward and again for its backward pass. Prefer it where the model with its
optimiser does not fit one device; otherwise whole copies (`distributed`) talk less.

Embeddings, final norm and head stay whole on every rank: the loss reads the head's matrix itself, chunk by
chunk, and it may be the embeddings' too. Their gradients are summed as with whole copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tanzim.adapters.full import decoder_layers
from tanzim.adapters.method import Method, trainable
from tanzim.core.errors import TrainError
from tanzim.train.distributed import Replicated
from tanzim.train.objectives.base import inner_model
from tanzim.train.ranks import Parameters

# Optimisers that step each entry of a tensor by itself, so that parts step like the whole.
ENTRYWISE = ("adamw", "adam", "gd", "sgd", "mini_batch", "momentum", "adagrad", "rmsprop", "adadelta")


class Sharded(Replicated):
    """One of several ranks with a part of each layer."""

    together = True

    def shard(self, method: Method, *, half: bool = False) -> None:
        """Divide the layers of a prepared model, and let ``method`` train the parts.

        Args:
            method: one that does nothing of its own around a step; its model goes to this rank's device.
            half: whether the products are in float16, with a loss scale.

        Raises:
            TrainError: the method works on whole matrices, or the precision on whole gradients.

        """
        if half:
            raise TrainError(
                "the loss scale of float16 needs whole gradients, which the ranks do not hold",
                where="model.dtype",
                fix="use model.dtype=bfloat16 or float32, or launch.strategy=ddp",
            )
        if type(method) is not Method:
            raise TrainError(
                "this method changes whole matrices around a step, which the ranks do not hold",
                where="launch.strategy",
                fix="launch.strategy=ddp, or train.method.type lora or full",
            )
        from torch.distributed.device_mesh import init_device_mesh

        causal = inner_model(method.model)
        if causal.get_output_embeddings() is None:
            raise TrainError(
                "only models that predict the next token are divided among ranks",
                where="launch.strategy",
                fix="launch.strategy=ddp",
            )
        mesh = init_device_mesh(self.device.type, (self.world,))
        layers = list(decoder_layers(causal).values())
        inside = {parameter for layer in layers for parameter in layer.parameters()}
        decoder = causal.get_decoder()
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(decoder, mesh=mesh, ignored_params=set(causal.parameters()) - inside)
        for module in decoder.modules():
            if isinstance(module, FSDPModule):
                # Gradients are scaled by the weight of the whole step already: summed, not averaged.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        causal.to(self.device)
        method.parameters = trainable(method.model)

    def check(self, optimizer: str, *, averaged: bool) -> None:
        """Refuse what works on whole tensors: other optimisers than those of single entries, averages."""
        if optimizer not in ENTRYWISE or averaged:
            what = "the average of weights" if averaged else f"the optimiser {optimizer}"
            raise TrainError(
                f"{what} needs whole tensors, which the ranks do not hold",
                where="launch.strategy",
                fix="launch.strategy=ddp, or without train.ema_decay one of " + ", ".join(ENTRYWISE),
            )

    def separate(self, optimizer: torch.optim.Optimizer) -> None:
        """Put divided and whole parameters into groups of their own: one kernel takes no mixture."""
        parts = [
            group | {"params": chosen}
            for group in optimizer.param_groups
            for whole in (False, True)
            if (chosen := [p for p in group["params"] if self.is_own(p) == whole])
        ]
        optimizer.param_groups[:] = parts

    def clip(self, parameters: Parameters, max_norm: float) -> float:
        """Scale the gradients to the norm of all ranks' parts together; what is whole counts once."""
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        parts = sum(_square(self.local(g)) for g in gradients if isinstance(g, DTensor))
        whole = sum(_square(g) for g in gradients if not isinstance(g, DTensor))
        norm = math.sqrt(self.sum(float(parts))[0] + float(whole))
        factor = min(1.0, max_norm / (norm + 1e-6))
        if math.isfinite(norm):
            for gradient in gradients:
                self.local(gradient).mul_(factor)
        return norm

    def whole(self, tensor: Tensor) -> Tensor:
        """Put the ranks' parts of ``tensor`` together, on the first rank's CPU."""
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        full: Tensor = tensor.full_tensor().detach()
        return full.cpu() if self.first else full.new_empty(0)

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """Return of ``whole`` what this rank keeps of ``like``, if that is divided and of its shape."""
        if not isinstance(like, DTensor) or like.shape != whole.shape:
            return whole
        there = whole.to(self.device)
        return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)

    @contextmanager
    def assembled(self, model: nn.Module) -> Iterator[None]:
        """Put whole parameters, on the CPU, in the place of the first rank's parts."""
        adapter = hasattr(model, "peft_config")
        replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                # An adapter is written without its base.
                if isinstance(parameter, DTensor) and (parameter.requires_grad or not adapter):
                    whole = self.whole(parameter)
                    if self.first:
                        replaced.append((module, name, parameter))
                        module._parameters[name] = nn.Parameter(whole, parameter.requires_grad)
        try:
            yield
        finally:
            for module, name, parameter in replaced:
                module._parameters[name] = parameter

    def is_own(self, parameter: Tensor) -> bool:
        """Whether this rank holds the whole of ``parameter``."""
        return not isinstance(parameter, DTensor)

    def local(self, tensor: Tensor) -> Tensor:
        """Return what this rank holds of ``tensor``."""
        return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
