"""What the passes of the paged scheduler hold."""

from __future__ import annotations

from typing import Any

import torch

from tanzim.infer.paged_scheduler import PagedScheduler


def count_tokens(scheduler: PagedScheduler) -> list[int]:
    """Return a list that grows by the number of tokens of every pass."""
    seen: list[int] = []
    lean = scheduler._lean

    class Counting:
        def __call__(self, step: Any, cache: Any) -> torch.Tensor:
            seen.append(step.ids_N.shape[0])
            return lean(step, cache)

        def __getattr__(self, name: str) -> Any:
            return getattr(lean, name)

    scheduler._lean = Counting()  # type: ignore[assignment]
    return seen
