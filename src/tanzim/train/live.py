"""How many bytes of tensors are alive at the most, whatever the allocator does with them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of all tensors made on one kind of device inside the block.

    ``peak`` is the most bytes that were alive together, ``kept`` the most that a forward pass
    left for its backward pass. What was made before the block is not counted, nor are the temporary
    buffers of a kernel.

    Args:
        device: what is elsewhere, such as activations sent to main memory, is not counted.

    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kind = device.type
        self.peak = self.kept = 0
        self._now = 0
        self._backward = False
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        backward = torch._C._current_graph_task_id() >= 0
        if backward and not self._backward:
            self.kept = max(self.kept, self._now)
        self._backward = backward
        # A view of what was made before the block is not new.
        given = {v.untyped_storage()._cdata for v in tree_leaves(args) if isinstance(v, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage()._cdata not in given:
                self._count(value.untyped_storage())
        self.peak = max(self.peak, self._now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes or storage.device.type != self._kind:
            return
        self._sizes[key] = storage.nbytes()
        self._now += storage.nbytes()
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)
