"""The ``train.optimizer`` key: how gradients become steps. Formulas and papers stand with the makers.

The first three differ only in the documents of a step: all of the epoch (gd), one (sgd), or
``train.tokens_per_step`` tokens of them (mini_batch, and every optimiser below).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tanzim.core.config import Section

WHOLE = 2**62  # tokens of a step that holds the whole data set


class _Adam(Section):
    """What the Adam family shares."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0, lt=1)
    """Guard against division by zero."""


class AdamWConfig(_Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

    type: Literal["adamw"] = "adamw"


class AdamConfig(_Adam):
    """Adam; weight decay, if any, is part of the gradient (Kingma and Ba 2014, arXiv:1412.6980)."""

    type: Literal["adam"] = "adam"


class AdamW8bitConfig(_Adam):
    """AdamW whose two moments take a byte each, by bitsandbytes (Dettmers et al. 2021, arXiv:2110.02861)."""

    type: Literal["adamw_8bit"] = "adamw_8bit"


class PagedAdamW8bitConfig(_Adam):
    """8-bit AdamW whose moments move to main memory when the GPU is full; CUDA alone (arXiv:2305.14314)."""

    type: Literal["paged_adamw_8bit"] = "paged_adamw_8bit"


class GdConfig(Section):
    """Gradient descent: every step is taken on all documents of the epoch; tokens_per_step is not used."""

    type: Literal["gd"] = "gd"


class SgdConfig(Section):
    """Stochastic gradient descent: every step is taken on one document; tokens_per_step is not used."""

    type: Literal["sgd"] = "sgd"


class MiniBatchConfig(Section):
    """Mini-batch gradient descent: every step is taken on tokens_per_step tokens."""

    type: Literal["mini_batch"] = "mini_batch"


class MomentumConfig(Section):
    """Mini-batch gradient descent with momentum (Sutskever et al. 2013)."""

    type: Literal["momentum"] = "momentum"
    momentum: float = Field(0.9, gt=0, lt=1)
    """Share of the last step that goes on."""
    nesterov: bool = False
    """Look ahead: add the momentum to the gradient once more."""


class AdaGradConfig(Section):
    """Each parameter's rate falls with the sum of its squared gradients (Duchi et al. 2011)."""

    type: Literal["adagrad"] = "adagrad"
    epsilon: float = Field(1e-10, gt=0, lt=1)
    """Guard against division by zero."""


class RmsPropConfig(Section):
    """AdaGrad with a moving average in place of the sum (Tieleman and Hinton 2012)."""

    type: Literal["rmsprop"] = "rmsprop"
    decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0, lt=1)
    """Guard against division by zero."""


class AdaDeltaConfig(Section):
    """Steps sized by the steps before; no learning rate to choose (Zeiler 2012, arXiv:1212.5701)."""

    type: Literal["adadelta"] = "adadelta"
    decay: float = Field(0.9, ge=0, lt=1)
    """Decay of the means of squared gradients and of squared steps."""
    epsilon: float = Field(1e-6, gt=0, lt=1)
    """Guard against division by zero; it also sizes the first steps."""


class LomoConfig(Section):
    """Each parameter steps as soon as its gradient is there (Lv et al. 2023, arXiv:2306.09782)."""

    type: Literal["lomo"] = "lomo"
    clip_value: float | None = Field(None, gt=0)
    """Hold each entry of a gradient within ± this, in one backward pass; unset: max_grad_norm, in two."""


class MezoConfig(Section):
    """A step from two forward passes and no backward pass (Malladi et al. 2023, arXiv:2305.17333)."""

    type: Literal["mezo"] = "mezo"
    epsilon: float = Field(1e-3, gt=0, lt=1)
    """How far the weights are moved to either side, along a direction of standard normal numbers."""


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``adamw`` where no type is given, so that ``train.optimizer.beta2=0.95`` works on its own."""
    return value.get("type", "adamw") if isinstance(value, dict) else getattr(value, "type", None)


OptimizerConfig = Annotated[
    Annotated[AdamWConfig, Tag("adamw")]
    | Annotated[AdamConfig, Tag("adam")]
    | Annotated[AdamW8bitConfig, Tag("adamw_8bit")]
    | Annotated[PagedAdamW8bitConfig, Tag("paged_adamw_8bit")]
    | Annotated[GdConfig, Tag("gd")]
    | Annotated[SgdConfig, Tag("sgd")]
    | Annotated[MiniBatchConfig, Tag("mini_batch")]
    | Annotated[MomentumConfig, Tag("momentum")]
    | Annotated[AdaGradConfig, Tag("adagrad")]
    | Annotated[RmsPropConfig, Tag("rmsprop")]
    | Annotated[AdaDeltaConfig, Tag("adadelta")]
    | Annotated[LomoConfig, Tag("lomo")]
    | Annotated[MezoConfig, Tag("mezo")],
    Discriminator(_type),
]

# Usual peaks. A step of plain descent is as long as the (clipped) gradient, one of Adam has the length
# rate · √parameters, hence the factor between them.
_USUAL = {
    "gd": 0.1,
    "sgd": 0.03,
    "mini_batch": 0.1,
    "momentum": 0.03,
    "adagrad": 1e-3,
    "adadelta": 1.0,
    "lomo": 0.1,
}


def usual_rate(validated: dict[str, Any]) -> float:
    """Return the learning rate where none is given: by the optimiser, and for MeZO by what is trained.

    Args:
        validated: the keys of ``train`` that stand before ``learning_rate``.

    """
    optimizer, method = validated.get("optimizer"), validated.get("method")
    kind = getattr(optimizer, "type", "adamw")
    if kind == "mezo":  # the paper's values: 1e-6 for a whole model, 1e-4 for an adapter
        return 1e-6 if getattr(method, "type", "") in ("full", "hft") else 1e-4
    return _USUAL.get(kind, 2e-4)


def step_capacity(optimizer: OptimizerConfig, tokens_per_step: int) -> int:
    """Return the most tokens of a step: all for gd, one document's for sgd, else ``tokens_per_step``."""
    return {"gd": WHOLE, "sgd": 1}.get(optimizer.type, tokens_per_step)
