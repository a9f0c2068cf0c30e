"""What the loss curve says, in words: the patterns of the guide's chapter 7.3–7.5 as rules with numbers.

Training losses are of one step each, so noisy; validation losses are of the same examples each time.
All thresholds are shares of the loss at the start: a loss that fell from 3 to 0.02 may double without
meaning, one that stands at 3 may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tanzim.core.records import Json
from tanzim.evaluate import unstable
from tanzim.evaluate.course import Curve, Diagnosis, evidence, read
from tanzim.evaluate.unstable import SMALL_DROP

# Two means of at least 3 steps with a trend between them need about this many.
FEWEST_STEPS = 20
# On a plateau validation losses move by about 1 %; three times that is a rise.
RISE = 0.03
RISE_OF_START = 0.01
# The last quarter of a run that has reached its plateau brings next to nothing.
STILL_FALLING = 0.1
# A fall that keeps 0.7 of the pace of a straight one to the end does not bend yet.
STRAIGHT, SLOW_DROP, MOSTLY = 0.7, 0.1, 0.9
# A best step in the first third leaves most of the run to memorising.
EARLY = 1 / 3


def diagnose(metrics: Sequence[Json]) -> Diagnosis:
    """Say what pattern the loss curve of a run follows.

    Args:
        metrics: the lines of ``metrics.jsonl``: ``kind`` train or eval, ``step``, ``loss``; events that are
            warnings name their kind as ``warning``.

    """
    curve = read(metrics)
    if found := unstable.exploded(curve, {"steps": float(len(curve.train))}):
        return found
    if len(curve.train) < FEWEST_STEPS:
        return Diagnosis(
            "too early to tell",
            f"{len(curve.train)} steps are too few to tell a trend from noise ({FEWEST_STEPS} are needed).",
            {"steps": float(len(curve.train))},
            ("train for more steps",),
        )
    numbers = evidence(curve)
    for rule in (
        unstable.exploding_gradients,
        unstable.rate_too_high,
        unstable.spikes,
        unstable.fluctuation,
        _over_fitting,
        unstable.vanishing_gradients,
        _rate_too_low,
        _under_fitting,
    ):
        found = rule(curve, numbers)
        if found:
            return found
    return _healthy(curve, numbers)


def _over_fitting(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    if len(curve.evals) < 3:
        return None
    best, rise, best_step = evidence["eval_best"], evidence["eval_rise"], evidence["eval_best_step"]
    since, until = curve.train[curve.steps > best_step], curve.train[curve.steps <= best_step]
    if rise <= max(RISE * best, RISE_OF_START * curve.start) or len(since) < 3 or len(until) < 3:
        return None
    before = float(until[-max(3, len(until) // 4) :].mean())
    if curve.end >= before:
        return None
    early = best_step <= EARLY * float(curve.steps[-1])
    best_one = (
        f"use the checkpoint of step {best_step:.0f} (the best one is kept); train.patience stops there"
    )
    less = "train.method.dropout=0.05, train.weight_decay=0.01, or a lower train.method.rank"
    if early:
        advice = (best_one, "lower train.learning_rate (a third of it), and more and more varied data", less)
    else:
        advice = (best_one, "fewer train.epochs, or more and more varied data", less)
    return Diagnosis(
        "early over-fitting" if early else "late over-fitting",
        f"Since step {best_step:.0f} of {curve.steps[-1]:.0f} the training loss fell on ({before:.3f} → "
        f"{curve.end:.3f}) while the validation loss rose ({best:.3f} → {evidence['eval_last']:.3f}): it "
        "memorises.",
        {**evidence, "train_at_best": before},
        advice,
    )


def _rate_too_low(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    """The loss falls in proportion to the learning rate to the end, and has not come far."""
    drop, last, noise = (evidence[name] for name in ("drop", "last_quarter_drop", "last_quarter_noise"))
    moves = np.diff(curve.evals)
    seen = last > noise or (len(moves) >= 4 and float((moves < 0).mean()) >= MOSTLY)
    bends = last + noise / 2 < STRAIGHT * curve.straight * drop
    if not 0 < drop < SLOW_DROP or bends or not seen:
        return None
    return Diagnosis(
        "learning rate too low",
        f"The training loss falls steadily but slowly ({curve.start:.3f} → {curve.end:.3f}, {drop:.1%}), as "
        "fast at the end as before: the steps are too small.",
        dict(evidence),
        (
            "raise train.learning_rate (three to ten times it); `tanzim range-test` finds a rate",
            "lower train.warmup_steps, or train longer",
        ),
    )


def _under_fitting(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    if evidence["drop"] >= SMALL_DROP:
        return None
    return Diagnosis(
        "under-fitting",
        f"The training loss hardly fell ({curve.start:.3f} → {curve.end:.3f}, {evidence['drop']:.1%}): "
        "the model does not learn the data.",
        dict(evidence),
        (
            "raise train.learning_rate (three times it), or train longer",
            "raise train.method.rank, or adapt all-linear layers",
            "look at `tanzim data preview`: are the right tokens trained, and are the answers learnable?",
        ),
    )


def _healthy(curve: Curve, evidence: Mapping[str, float]) -> Diagnosis:
    falling = evidence["last_quarter_drop"]
    still = falling > max(STILL_FALLING * evidence["drop"], evidence["last_quarter_noise"])
    both = f" and the validation loss to {evidence['eval_last']:.3f}" if len(curve.evals) else ""
    summary = (
        f"The training loss fell from {curve.start:.3f} to {curve.end:.3f} ({evidence['drop']:.0%}){both}"
    )
    if still:
        more = "train longer: more train.epochs or train.max_steps"
        return Diagnosis("healthy", f"{summary}; it was still falling at the end.", dict(evidence), (more,))
    unwatched = () if len(curve.evals) else ("keep a validation split, to see over-fitting",)
    return Diagnosis("healthy", f"{summary} and then levelled off.", dict(evidence), unwatched)
