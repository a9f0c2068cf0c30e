"""The optimisers, by the name their config gives them.

θ are the weights, g the gradient of a step's loss (clipped), η the learning rate, λ the weight decay on
matrices. Where a formula has no λ, the decay is part of the gradient: g ← g + λ·θ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tanzim.core.errors import TrainError
from tanzim.core.optional import need
from tanzim.train.config import TrainConfig

Groups = list[dict[str, Any]]


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser of ``config`` over ``parameters``, with weight decay on matrices only.

    Args:
        parameters: what is trained, by name.
        config: the ``train`` section.

    Raises:
        TrainError: the optimiser does not work on this device.
        MissingExtra: it needs a package that is not installed.

    """
    # (IA)³'s factors have the shape of matrices of one column, and rest at one, not at zero.
    matrices = [value for name, value in parameters.items() if value.ndim >= 2 and "ia3_l" not in name]
    vectors = [value for name, value in parameters.items() if value.ndim < 2 or "ia3_l" in name]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.optimizer.type]([group for group in groups if group["params"]], config)


def _descent(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """Gradient descent: θ ← θ − η·g (Robbins and Monro 1951; Bottou et al. 2018, arXiv:1606.04838).

    gd takes g over all documents of the epoch: exact and smooth, one step an epoch; for small data.
    sgd takes one document: noisy, cheap, many steps; for data that arrives one by one.
    mini_batch takes ``train.tokens_per_step`` tokens: the usual balance of the two.
    lomo makes these steps itself, during the backward pass, and mezo with an estimate of g.
    """
    return torch.optim.SGD(groups, lr=config.learning_rate, fused=True)


def _momentum(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """Momentum: m ← μ·m + g, θ ← θ − η·m; Nesterov: θ ← θ − η·(g + μ·m) (Sutskever et al. 2013).

    It averages out the noise of mini-batches and speeds up along narrow valleys, for one buffer where
    Adam has two. Prefer it to Adam where memory is short and the rate can be tuned.
    """
    settings: Any = config.optimizer
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )


def _adagrad(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """AdaGrad: s ← s + g², θ ← θ − η·g / (√s + ε) (Duchi et al. 2011, JMLR 12).

    Rarely used parameters keep large steps: for sparse features, such as new words' embeddings. The sum
    only grows, so long runs come to a halt.
    """
    settings: Any = config.optimizer
    return torch.optim.Adagrad(groups, lr=config.learning_rate, eps=settings.epsilon, fused=_fuses(groups))


def _rmsprop(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """RMSProp: v ← ρ·v + (1−ρ)·g², θ ← θ − η·g / (√v + ε) (Tieleman and Hinton 2012).

    AdaGrad that forgets: for goals that move, and recurrent models; Adam without momentum and without
    the correction of its first steps, which are therefore up to 1/√(1−ρ) times as long.
    """
    settings: Any = config.optimizer
    return torch.optim.RMSprop(groups, lr=config.learning_rate, alpha=settings.decay, eps=settings.epsilon)


def _adadelta(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """AdaDelta (Zeiler 2012, arXiv:1212.5701), θ ← θ − η·d with η = 1 as the method has it.

    v ← ρ·v + (1−ρ)·g²,  d = g·√(u + ε) / √(v + ε),  u ← ρ·u + (1−ρ)·d².
    Prefer it where no learning rate can be tuned; it starts slowly, by steps of about √ε.
    """
    settings: Any = config.optimizer
    return torch.optim.Adadelta(groups, lr=config.learning_rate, rho=settings.decay, eps=settings.epsilon)


def _adam(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam: m̂, v̂ the corrected means of g and g²; θ ← θ − η·m̂ / (√v̂ + ε) (arXiv:1412.6980).

    Its weight decay is divided by √v̂ like the rest of the gradient; where decay matters take adamw.
    """
    settings: Any = config.optimizer
    return torch.optim.Adam(
        groups,
        lr=config.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def _adamw(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW: θ ← θ − η·(m̂ / (√v̂ + ε) + λ·θ) (Loshchilov and Hutter, arXiv:1711.05101).

    The default: its usual rates work over a wide range of models and data.
    """
    settings: Any = config.optimizer
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        # One kernel over a parameter's weight, gradient and moments reads each of them once.
        fused=True,
    )


def _adamw_8bit(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with moments in 8 bits, quantised in blocks of 256 (Dettmers et al. 2021, arXiv:2110.02861).

    A quarter of the memory for moments, nearly the same steps; parameters of fewer than 4,096 entries
    keep float32 moments. Paged (arXiv:2305.14314): moments move to main memory while the GPU is full.
    Prefer it for full fine-tuning; an adapter's moments are small anyway.
    """
    settings: Any = config.optimizer
    paged = settings.type == "paged_adamw_8bit"
    bnb: Any = need("bitsandbytes", "quant")
    device = groups[0]["params"][0].device.type
    if paged and device != "cuda":
        raise TrainError(
            f"train.optimizer.type=paged_adamw_8bit moves pages between a CUDA device and main memory; "
            f"the model is on {device}",
            where="train.optimizer.type",
            fix="set it to adamw_8bit",
        )
    wide = {str(p.dtype) for group in groups for p in group["params"] if p.dtype == torch.float64}
    if wide or device not in ("cuda", "cpu", "xpu"):
        raise TrainError(
            f"train.optimizer.type={settings.type} does not work on {', '.join(wide) or device}",
            where="train.optimizer.type",
            fix="set it to adamw",
        )
    return bnb.optim.AdamW8bit(  # type: ignore[no-any-return]
        groups,
        lr=config.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        is_paged=paged,
    )


def _fuses(groups: Groups) -> bool:
    """Tell whether torch has a fused AdaGrad here: on the CPU alone."""
    return all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])


OPTIMIZERS: dict[str, Callable[[Groups, TrainConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "adamw_8bit": _adamw_8bit,
    "paged_adamw_8bit": _adamw_8bit,
    "gd": _descent,
    "sgd": _descent,
    "mini_batch": _descent,
    "momentum": _momentum,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adadelta": _adadelta,
    "lomo": _descent,
    "mezo": _descent,
}
