"""What goes wrong before a model can learn: rates, gradients, spikes, fluctuation.

What the run itself warned of (`tanzim.train.watch`) is counted here, not looked for again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tanzim.evaluate.course import Curve, Diagnosis

# Below a drop of 5 % little was learned; even a well-taught model lowers its loss by 10 % on a new task.
SMALL_DROP = 0.05
# Steps of some 2,000 tokens differ by 3–10 % among themselves; a fifth is more than their contents explain.
LARGE_SWING = 0.2
# The validation examples do not change: between evaluations 5 % up and down again is the weights' doing.
LARGE_TURN = 0.05
# The mean of a tenth of the steps scatters by a few per cent; a tenth of the start is a rise.
LARGE_REBOUND = 0.1
# One jump or spike is an odd batch.
REPEATED = 2
LOWER = ("lower train.learning_rate (a tenth to a third of it)", "raise train.warmup_steps")


def exploded(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """The run was stopped because its loss exploded; that needs no number of steps."""
    if not curve.warnings.get("loss exploded"):
        return None
    return Diagnosis(
        "learning rate too high",
        f"The loss exploded ({curve.train[0]:.3f} → {curve.train[-1]:.3f}) and the run was stopped: the "
        "learning rate is far too high.",
        dict(evidence),
        ("lower train.learning_rate to a tenth; `tanzim range-test` finds a rate", LOWER[1]),
    )


def exploding_gradients(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """Gradients jumped, and little was learned or it came again and again."""
    times = curve.warnings.get("exploding gradients", 0)
    if not times or (evidence["drop"] >= SMALL_DROP and times <= REPEATED):
        return None
    return Diagnosis(
        "exploding gradients",
        f"Gradients exploded ({times} times warned of, see the events) while the training loss went from "
        f"{curve.start:.3f} to {curve.end:.3f}.",
        {**evidence, "exploding_gradients": float(times)},
        (LOWER[0], "lower train.max_grad_norm to what is usual between the jumps", LOWER[1]),
    )


def vanishing_gradients(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """Layers got next to no gradient, and little was learned."""
    times = curve.warnings.get("vanishing gradients", 0)
    if not times or evidence["drop"] >= SMALL_DROP:
        return None
    return Diagnosis(
        "vanishing gradients",
        f"A layer's gradient vanished (see the events) and the training loss hardly fell "
        f"({curve.start:.3f} → {curve.end:.3f}).",
        {**evidence, "vanishing_gradients": float(times)},
        (
            "use model.dtype=float32 or bfloat16: float16 loses small gradients",
            "lower train.learning_rate: too large steps can leave a layer without any",
            "train the layers that learn: train.method.target_modules, train.method.last_layers",
        ),
    )


def rate_too_high(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """The training loss rose, from the start on or after it had fallen."""
    lowest, step = curve.lowest
    if evidence["drop"] < -SMALL_DROP:
        what = f"the training loss rose from {curve.start:.3f} to {curve.end:.3f}"
    elif evidence["swing"] <= LARGE_SWING and evidence["rebound"] > max(
        LARGE_REBOUND, evidence["rebound_noise"]
    ):
        what = f"the training loss fell to {lowest:.3f} by step {step:.0f} and rose to {curve.end:.3f} again"
    else:
        return None
    return Diagnosis(
        "learning rate too high",
        f"Unstable: {what}. The learning rate is too high.",
        {**evidence, "lowest": lowest, "lowest_step": step},
        (*LOWER, "lower train.max_grad_norm"),
    )


def spikes(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """The loss jumped up again and again."""
    times = curve.warnings.get("loss spike", 0)
    if times < REPEATED:
        return None
    return Diagnosis(
        "loss spikes",
        f"The training loss jumped up in {times} places (see the events), in between it went from "
        f"{curve.start:.3f} to {curve.end:.3f}.",
        {**evidence, "spikes": float(times)},
        (
            "look at the documents of these steps: one broken source is the usual cause",
            "lower train.max_grad_norm, so that one step counts less",
            "lower train.learning_rate, or train.optimizer.beta2 to 0.95, which forgets a spike sooner",
        ),
    )


def _turning(curve: Curve) -> float:
    """Return the median move between evaluations if most moves turn back the one before, else 0."""
    moves = np.diff(curve.evals)
    if len(moves) < 4:
        return 0.0
    turns = np.sign(moves[1:]) != np.sign(moves[:-1])
    return float(np.median(np.abs(moves))) if turns.mean() >= 0.5 else 0.0


def fluctuation(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """The loss goes up and down more than its contents explain."""
    turning = _turning(curve) / curve.start
    if evidence["swing"] > LARGE_SWING:
        what = f"the training loss swings by {evidence['swing']:.0%} of its start from step to step"
    elif turning > LARGE_TURN:
        what = f"the validation loss goes up and down by {turning:.0%} of the start between evaluations"
    else:
        return None
    return Diagnosis(
        "fluctuation",
        f"Unstable: {what}. The learning rate is too high or the gradients are too noisy.",
        {**evidence, "eval_turning": turning},
        (
            "lower train.learning_rate (a third of it)",
            "raise train.tokens_per_step, so that gradients are less noisy",
            "raise train.warmup_steps, or lower train.max_grad_norm",
        ),
    )
