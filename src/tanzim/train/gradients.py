"""What gradients say besides where to step: their norm by layer, and how noisy they are.

The noise follows McCandlish et al. 2018 (arXiv:1812.06162, appendix A.1). With the squared norms of the
gradients of a small and a large batch (b and B trained tokens, each gradient a mean over its tokens):
  |G|² ≈ (B·|g_B|² − b·|g_b|²) / (B − b)        the signal
  S    ≈ (|g_b|² − |g_B|²) / (1/b − 1/B)        the noise, the trace of the covariance of one token
  B_simple = S / |G|²                            trained tokens at which both weigh the same
The small batch is the first pass of a step and the large one the step, so nothing is computed twice. Both
estimates are unbiased but scatter, so they are averaged over steps before they are divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tanzim.core.records import Json

LAYER = re.compile(r"^(?:.*\.)?((?:encoder\.|decoder\.)?\w+\.\d+)\.")  # model.layers.3.mlp… → layers.3
FEWEST = 3  # estimates that a mean is made of
SMALL, LARGE = 0.1, 2.0  # multiples of B_simple between which a step is well sized


@dataclass(frozen=True, slots=True)
class Noise:
    """The two estimates of one step, in squared units of the gradient."""

    signal: float
    trace: float


def noise(small: float, small_tokens: float, large: float, large_tokens: float) -> Noise:
    """Estimate signal and noise from two squared gradient norms.

    Args:
        small: squared norm of the mean gradient over ``small_tokens`` trained tokens.
        small_tokens: fewer than ``large_tokens``.
        large: the same of the larger batch.
        large_tokens: trained tokens of the larger batch.

    """
    return Noise(
        signal=(large_tokens * large - small_tokens * small) / (large_tokens - small_tokens),
        trace=(small - large) / (1 / small_tokens - 1 / large_tokens),
    )


def square_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Return the squared L2 norm of all gradients together."""
    norms = _norms([p.grad for p in parameters if p.grad is not None])
    return float(norms.double().square().sum())


def layer_norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """Return the L2 norm of each layer's gradient, in the order of the layers; all else is ``rest``."""
    named = [(name, p.grad) for name, p in parameters.items() if p.grad is not None]
    squares: dict[str, float] = {}
    norms = _norms([gradient for _, gradient in named]).double().square().tolist()
    for (name, _), square in zip(named, norms, strict=True):
        match = LAYER.match(name)
        layer = match.group(1) if match else "rest"
        squares[layer] = squares.get(layer, 0.0) + square
    return {layer: square**0.5 for layer, square in squares.items()}


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    if not gradients:
        return torch.zeros(0)
    return torch.stack([torch.linalg.vector_norm(g, dtype=_wide(g)).cpu() for g in gradients])


def _wide(gradient: Tensor) -> torch.dtype:
    return torch.promote_types(gradient.dtype, torch.float32)


def noise_in_words(metrics: Sequence[Json], tokens_per_step: float) -> str:
    """Say what the noise of a run means for ``train.tokens_per_step``; nothing where there is too little.

    Args:
        metrics: the lines of ``metrics.jsonl``; those of kind gradients hold the estimates.
        tokens_per_step: tokens of the steps as they were, on average.

    """
    found = [line for line in metrics if line["kind"] == "gradients" and line["noise_trace"] is not None]
    if len(found) < FEWEST:
        return ""
    signal = sum(line["gradient_signal"] for line in found)
    trace = sum(line["noise_trace"] for line in found)
    trained = [line for line in metrics if line["kind"] == "train"]
    share = sum(line["trained_tokens"] for line in trained) / max(1, sum(line["tokens"] for line in trained))
    if signal <= 0:
        return (
            f"gradient noise: over {len(found)} steps the signal drowned in it; a larger "
            f"train.tokens_per_step (now about {tokens_per_step:,.0f}) makes better use of each step"
        )
    scale = trace / signal / max(share, 1e-9)
    if scale < 1:
        return "gradient noise: too little to be measured; a smaller train.tokens_per_step makes more steps"
    said = f"gradient noise: signal and noise weigh the same at about {scale:,.0f} tokens a step"
    now = f"train.tokens_per_step, now about {tokens_per_step:,.0f},"
    if tokens_per_step > scale * LARGE:
        return f"{said}; {now} could be smaller: more steps on the same data at little loss"
    if tokens_per_step < scale * SMALL:
        return f"{said}; {now} could be larger, with a larger learning rate: steps are mostly noise"
    return f"{said}; {now} suits it"
