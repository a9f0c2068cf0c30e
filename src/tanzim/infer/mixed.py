"""Different adapters in one batch: the base's product for all tokens, and beside it each adapter's own.

What S-LoRA (arXiv:2311.03285) and Punica (arXiv:2310.18547) do on a GPU, in products that torch has.

Legend: N tokens of a pass, G adapters of it, M most tokens of one of them, S slots, R rank, I inputs,
O outputs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tanzim.adapters.own import Change, module_change
from tanzim.infer.kernels import add_low_rank
from tanzim.infer.lowrank import LowRank
from tanzim.infer.threads import shared
from tanzim.models.integers import device_of

FEW = 8  # tokens of an adapter up to which one batched product beats one product for each adapter
RANK_STEP = 8  # ranks are filled up with zeros to a multiple


@dataclass(frozen=True, slots=True)
class _Group:
    """The tokens of one adapter in a pass; None stands for all tokens."""

    slot: int
    tokens: Tensor | None


@dataclass(frozen=True, slots=True)
class _Padded:
    """All adapters of a pass as one batched product over the slots from ``first`` to ``last``."""

    first: int
    last: int
    gather: Tensor  # [slots · M] the token of each place (any, where there is none)
    tokens: Tensor  # [N'] the tokens that have an adapter
    places: Tensor | None  # [N'] where each of them stands; None: one after the other


@dataclass(frozen=True, slots=True)
class Plan:
    """Which token of a pass belongs to which adapter.

    Args:
        count: tokens of the pass.
        groups: all adapters of the pass.
        each: those computed one after the other; the others are computed together.
        slot_N: for the compiled product, the slots of the tokens computed together; -1 for the others.
        padded: the same as a batched product.

    """

    count: int
    groups: tuple[_Group, ...] = ()
    each: tuple[_Group, ...] = ()
    slot_N: Tensor | None = None
    padded: _Padded | None = None


class Place:
    """One linear layer and the factors of every adapter that lies in a slot.

    Args:
        linear: the base's layer.

    """

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        sizes = linear.in_features, linear.out_features
        self.a_SRI, self.b_SRO = (torch.empty(0, 0, size, device=device_of(linear)) for size in sizes)
        self.gain_SO: Tensor | None = None

    def put(self, slot: int, change: LowRank | None) -> None:
        """Lay an adapter's factors into a slot; None empties it."""
        rank = 0 if change is None else change.a_RI.shape[0]
        self.grow(slot + 1, rank)
        self.a_SRI[slot].zero_()
        self.b_SRO[slot].zero_()
        if self.gain_SO is not None:
            self.gain_SO[slot].fill_(1)
        if change is None:
            return
        self.a_SRI[slot, :rank] = change.a_RI
        self.b_SRO[slot, :rank] = change.b_RO
        if change.gain_O is not None:
            if self.gain_SO is None:
                self.gain_SO = self.b_SRO.new_ones(self.b_SRO.shape[0], self.b_SRO.shape[2])
            self.gain_SO[slot] = change.gain_O

    def grow(self, slots: int, rank: int = 0) -> None:
        """Make room for this many adapters of this rank; what stands there stays."""
        have, width = self.a_SRI.shape[:2]
        rank = -(-rank // RANK_STEP) * RANK_STEP
        if slots <= have and rank <= width:
            return
        slots, rank = max(have, slots), max(width, rank)
        self.a_SRI, self.b_SRO = (_grown(x, (slots, rank, x.shape[2])) for x in (self.a_SRI, self.b_SRO))
        if self.gain_SO is not None and slots > have:
            ones = self.gain_SO.new_ones(slots - have, self.gain_SO.shape[1])
            self.gain_SO = torch.cat([self.gain_SO, ones])

    def add_each(self, y_NO: Tensor, x_NI: Tensor, group: _Group) -> None:
        """Add one adapter's product to its tokens."""
        own_NI = x_NI if group.tokens is None else x_NI.index_select(0, group.tokens)
        own_NI = own_NI.to(self.a_SRI.dtype)
        _add(y_NO, group.tokens, own_NI @ self.a_SRI[group.slot].T @ self.b_SRO[group.slot])

    def add_together(self, y_NO: Tensor, x_NI: Tensor, padded: _Padded) -> None:
        """Add the products of many adapters with few tokens each."""
        first, last = padded.first, padded.last
        own_NI = x_NI.index_select(0, padded.gather).to(self.a_SRI.dtype)
        own_SMI = own_NI.view(last - first, -1, x_NI.shape[1])
        hidden_SMR = torch.bmm(own_SMI, self.a_SRI[first:last].transpose(1, 2))
        added_NO = torch.bmm(hidden_SMR, self.b_SRO[first:last]).flatten(0, 1)
        if padded.places is not None:
            added_NO = added_NO.index_select(0, padded.places)
        _add(y_NO, padded.tokens, added_NO)

    def scale(self, y_NO: Tensor, group: _Group) -> None:
        """Scale one adapter's outputs, where it does that (DoRA)."""
        if self.gain_SO is None:
            return
        tokens: Any = slice(None) if group.tokens is None else group.tokens
        bias_O: Tensor | float = 0.0 if self.linear.bias is None else self.linear.bias
        y_NO[tokens] = ((y_NO[tokens] - bias_O) * self.gain_SO[group.slot] + bias_O).to(y_NO.dtype)


class Mix:
    """The low-rank adapters of a model, side by side in slots.

    Args:
        model: the bare transformers model.

    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._slots: dict[str, int] = {}
        self.places: dict[str, Place] = {}
        self.plan = Plan(0)
        self._compiled = _compiled()
        self.changes: list[Change] = []

    def __contains__(self, adapter: object) -> bool:
        return adapter in self._slots

    @torch.inference_mode(False)
    @torch.no_grad()
    def add(self, adapter: str, changes: Mapping[str, LowRank]) -> None:
        """Lay an adapter into a free slot.

        Args:
            adapter: its name.
            changes: what it adds, by path of the layer.

        """
        taken = set(self._slots.values())
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        for path in changes:
            if path not in self.places:
                place = Place(self._model.get_submodule(path))  # type: ignore[arg-type]
                self.places[path] = place
                self.changes.append(module_change(self._model, path, MixedLinear(place, self)))
        self._slots[adapter] = slot
        for path, place in self.places.items():
            place.grow(1 + max(self._slots.values()))  # a place may be newer than other adapters
            place.put(slot, changes.get(path))

    @torch.no_grad()
    def remove(self, adapter: str) -> None:
        """Free an adapter's slot."""
        slot = self._slots.pop(adapter)
        for place in self.places.values():
            place.put(slot, None)

    def set_plan(self, tokens: Iterable[tuple[str | None, int]], device: torch.device) -> None:
        """Say whose the tokens of the next pass are.

        Args:
            tokens: adapters (None: the base) and how many tokens each has, in the tokens' order; an
                adapter may come several times.
            device: where the model computes.

        """
        own: dict[int, list[int]] = {}
        count = 0
        for adapter, number in tokens:
            if adapter is not None:
                own.setdefault(self._slots[adapter], []).extend(range(count, count + number))
            count += number
        whole = len(own) == 1 and len(next(iter(own.values()))) == count
        groups = {
            slot: _Group(slot, None if whole else torch.tensor(indices, device=device))
            for slot, indices in sorted(own.items())
        }
        few = {slot: indices for slot, indices in own.items() if len(indices) <= FEW}
        slot_N, padded = None, None
        if device.type == "cpu" and self._compiled and few:
            slot_N = torch.full((count,), -1, dtype=torch.int64)
            for slot, indices in few.items():
                slot_N[indices] = slot
        else:
            padded = _padded(few, device)
        together = few if slot_N is not None or padded is not None else {}
        each = tuple(group for slot, group in groups.items() if slot not in together)
        self.plan = Plan(count, tuple(groups.values()), each, slot_N, padded)

    def add_to(self, places: Sequence[tuple[Place, int]], y_NO: Tensor, x_NI: Tensor) -> None:
        """Add each token's own adapter to what the base computed.

        Args:
            places: layers that read the same x, and where their outputs begin in y.
            y_NO: what the base computed of all of them.
            x_NI: their input.

        """
        plan = self.plan
        assert x_NI.shape[0] == plan.count
        parts = [(place, y_NO[:, start : start + place.b_SRO.shape[2]]) for place, start in places]
        if plan.slot_N is not None and x_NI.dtype == y_NO.dtype == torch.float32:
            self._add_compiled(places, y_NO, x_NI.contiguous(), plan.slot_N)
        elif plan.slot_N is not None:
            for group in plan.groups:
                if group not in plan.each:
                    for place, part_NO in parts:
                        place.add_each(part_NO, x_NI, group)
        for place, part_NO in parts:
            if plan.padded is not None:
                place.add_together(part_NO, x_NI, plan.padded)
            for group in plan.each:
                place.add_each(part_NO, x_NI, group)
            for group in plan.groups:
                place.scale(part_NO, group)

    def _add_compiled(
        self, places: Sequence[tuple[Place, int]], y_NO: Tensor, x_NI: Tensor, slot_N: Tensor
    ) -> None:
        kernel = add_low_rank()
        x, y, slots = x_NI.numpy(), y_NO.numpy(), slot_N.numpy()
        given = [(start, slots, place.a_SRI.numpy(), place.b_SRO.numpy()) for place, start in places]

        def work(first: int, last: int) -> None:
            for part in given:
                kernel(x, y, *part, first, last)

        size = sum(place.a_SRI[0].numel() + place.b_SRO[0].numel() for place, _ in places)
        shared(work, x.shape[0], size * x.shape[0])


class MixedLinear(nn.Module):
    """Stands in a linear layer's place while a mixed batch is computed.

    Args:
        place: the layer and its adapters.
        mix: knows whose the tokens are.

    """

    def __init__(self, place: Place, mix: Mix) -> None:
        super().__init__()
        self._place, self._mix = place, mix

    @property
    def weight(self) -> Tensor:
        """The base's matrix, whose precision and device some models ask for."""
        return self._place.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x [..., I]."""
        y: Tensor = self._place.linear(x)
        if self._mix.plan.groups:
            self._mix.add_to([(self._place, 0)], y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1]))
        return y


def _padded(own: Mapping[int, list[int]], device: torch.device) -> _Padded | None:
    """Return the plan of one batched product, or None where it would compute too much."""
    most = max(map(len, own.values()), default=0)
    if len(own) < 2 or most > FEW:
        return None
    first, last = min(own), max(own) + 1
    if last - first > 2 * len(own):
        return None
    gather: list[int] = []
    tokens: list[int] = []
    places: list[int] = []
    for slot in range(first, last):
        indices = own.get(slot, [])
        places += range(len(gather), len(gather) + len(indices))
        tokens += indices
        gather += indices + [0] * (most - len(indices))
    dense = len(places) == len(gather)
    made = torch.tensor([*gather, *tokens, *places], device=device)
    ends = len(gather), len(gather) + len(tokens)
    return _Padded(first, last, made[: ends[0]], made[ends[0] : ends[1]], None if dense else made[ends[1] :])


def _compiled() -> bool:
    """Whether the compiled product is there; without numba torch's are taken."""
    return importlib.util.find_spec("numba") is not None


def _add(y_NO: Tensor, tokens: Tensor | None, added_NO: Tensor) -> None:
    if tokens is None:
        y_NO += added_NO
    else:
        y_NO.index_add_(0, tokens, added_NO.to(y_NO.dtype))


def _grown(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    result = values.new_zeros(shape)
    result[: values.shape[0], : values.shape[1]] = values
    return result
