"""Warnings while a run goes on: what looks wrong in its latest lines, in words, with the change to make.

Rules with numbers, each explained beside its constant. They see the lines of ``metrics.jsonl`` one after
another and nothing else, so a resumed run that is shown its earlier lines goes on as if never stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from tanzim.core.records import Json

Warned = Literal[
    "loss spike",
    "loss exploded",
    "exploding gradients",
    "vanishing gradients",
    "learning rate too high",
    "over-fitting",
]

WINDOW = 20  # steps that a new one is compared with; fewer than HALF say nothing
HALF = 10
# A step's loss differs from the ones before by its contents: 6 deviations (of the median, so that earlier
# spikes do not count) and a third of the loss are more than that.
SPIKE, SPIKE_SHARE = 6.0, 0.35
# After clipping, a gradient ten times the usual one still turns the moments of Adam.
GRADIENT_JUMP = 10.0
# Layers of one model differ by up to some tenfold; a thousandfold means that a layer does not learn, or
# that one layer takes the whole of the clipped step.
LAYER_RATIO = 1e3
# A loss that stands this far above the untrained model's for EXPLODED steps does not come back.
EXPLODED, EXPLODED_FACTOR, EXPLODED_NATS = 5, 2.0, 2.0
RISEN = 1.1  # of ten steps against the first ten
OVER_FIT = 1.03  # of the validation loss over its best; on a plateau it moves by about 1 %
QUIET_STEPS = 50  # between two warnings of a kind; those of ONCE describe a whole run
ONCE = ("over-fitting", "learning rate too high", "loss exploded")


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning: its kind, and what was seen with the change to make."""

    kind: Warned
    message: str


class Watch:
    """Looks at the lines of one run as they come.

    Args:
        base_loss: the loss before training, on a few documents, if it is known.

    """

    def __init__(self, base_loss: float | None) -> None:
        self.base_loss = base_loss
        self.exploded = False
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._first: list[float] = []
        self._evals: list[tuple[int, float, float]] = []  # step, validation loss, training loss
        self._said: dict[Warned, int] = {}

    def see(self, line: Json) -> list[Finding]:
        """Take the next line; return what is to be warned of now."""
        kind, step = line["kind"], int(line["step"])
        if kind == "train":
            found = [*self._loss(line), *self._norm(line)]
        elif kind == "eval":
            found = self._evaluation(step, line["loss"])
        elif kind == "gradients":
            found = self._layers(line["layers"])
        else:
            return []
        new = [f for f in found if self._is_new(f.kind, step)]
        self._said |= {f.kind: step for f in new}
        return new

    def _is_new(self, kind: Warned, step: int) -> bool:
        before = self._said.get(kind)
        return before is None or (kind not in ONCE and step - before >= QUIET_STEPS)

    def _loss(self, line: Json) -> list[Finding]:
        loss, rate = float(line["loss"]), float(line["learning_rate"])
        found = []
        if len(self._losses) >= HALF:
            usual = median(self._losses)
            spread = 1.4826 * median(abs(value - usual) for value in self._losses)
            if loss > usual + SPIKE * spread and loss > usual * (1 + SPIKE_SHARE):
                found.append(
                    Finding(
                        "loss spike",
                        f"loss spike: {loss:.3f}, where {usual:.3f} was usual. Look at the documents of this "
                        "step; if it comes again, lower train.max_grad_norm or train.learning_rate",
                    )
                )
        self._losses.append(loss)
        if len(self._first) < HALF:
            self._first.append(loss)
        start = max(self._first[0], self.base_loss or 0.0)
        latest = list(self._losses)[-EXPLODED:]
        if len(latest) == EXPLODED and min(latest) > max(EXPLODED_FACTOR * start, start + EXPLODED_NATS):
            self.exploded = True
            found.append(
                Finding(
                    "loss exploded",
                    f"the loss exploded: from {start:.3f} to {fmean(latest):.3f}. Lower train.learning_rate "
                    f"to a tenth (it was {rate:g}), or raise train.warmup_steps",
                )
            )
        elif len(self._losses) == WINDOW and fmean(list(self._losses)[-HALF:]) > RISEN * fmean(self._first):
            found.append(
                Finding(
                    "learning rate too high",
                    f"the training loss rises: {fmean(self._first):.3f} in the first steps, "
                    f"{fmean(list(self._losses)[-HALF:]):.3f} now. Lower train.learning_rate to a third "
                    f"(it was {rate:g})",
                )
            )
        return found

    def _norm(self, line: Json) -> list[Finding]:
        norm = line["grad_norm"]
        if norm is None:
            return []
        found = []
        if len(self._norms) >= HALF and norm > GRADIENT_JUMP * median(self._norms) > 0:
            found.append(
                Finding(
                    "exploding gradients",
                    f"exploding gradients: a norm of {norm:.3g}, where {median(self._norms):.3g} was usual. "
                    "Lower train.learning_rate, or train.max_grad_norm to what is usual",
                )
            )
        self._norms.append(float(norm))
        return found

    def _layers(self, layers: Mapping[str, float]) -> list[Finding]:
        """Compare layers of one list with one another (what is outside of them may differ)."""
        norms = {name: norm for name, norm in layers.items() if name != "rest"}
        if len(norms) < 2:
            return []
        usual = median(norms.values())
        largest, smallest = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
        found = []
        if norms[largest] > LAYER_RATIO * usual:
            found.append(
                Finding(
                    "exploding gradients",
                    f"exploding gradients: {largest} has a norm of {norms[largest]:.3g}, the median layer "
                    f"{usual:.3g}. Lower train.learning_rate, or leave {largest} as it is "
                    "(train.method.freeze, train.method.target_modules)",
                )
            )
        if norms[smallest] * LAYER_RATIO < usual:
            found.append(
                Finding(
                    "vanishing gradients",
                    f"vanishing gradients: {smallest} has a norm of {norms[smallest]:.3g}, the median layer "
                    f"{usual:.3g}: it learns nothing. Use model.dtype=float32 or bfloat16; look for a layer "
                    "above it that lets nothing through",
                )
            )
        return found

    def _evaluation(self, step: int, loss: float) -> list[Finding]:
        training = fmean(list(self._losses)[-HALF:]) if self._losses else loss
        self._evals.append((step, loss, training))
        best_step, best, then = min(self._evals, key=lambda entry: entry[1])
        worse = [entry for entry in self._evals if entry[0] > best_step]
        if len(worse) < 2 or loss <= OVER_FIT * best or training >= then:
            return []
        return [
            Finding(
                "over-fitting",
                f"over-fitting since step {best_step}: the validation loss rose from {best:.3f} to "
                f"{loss:.3f} while the training loss fell to {training:.3f}. The weights of step "
                f"{best_step} are kept; train.patience would stop here",
            )
        ]
