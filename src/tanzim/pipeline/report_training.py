"""Report: loss curves and their diagnosis, events on the way, and the plan next to what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tanzim.core.charts import Line, figure, line_chart, thin
from tanzim.core.page import Child, fold, note, table, tag
from tanzim.core.records import Json
from tanzim.core.units import duration, number, size
from tanzim.evaluate.curves import diagnose

_KINDS: dict[str, Literal["good", "info"]] = {"healthy": "good", "too early to tell": "info"}


def training_section(metrics: Sequence[Json], result: Json) -> list[Child]:
    """Return the curves, what they mean, and the events of the run.

    Args:
        metrics: the lines of ``metrics.jsonl``.
        result: the manifest's ``result``; its best step is marked.

    """
    steps = [(float(line["step"]), line["loss"]) for line in metrics if line["kind"] == "train"]
    evals = [(float(line["step"]), line["loss"]) for line in metrics if line["kind"] == "eval"]
    if not steps:
        return [note("metrics.jsonl is missing or has no step: nothing was trained here.", kind="missing")]
    parts: list[Child] = []
    diagnosis = diagnose(metrics)
    advice = [tag("li", step) for step in diagnosis.advice]
    parts.append(
        note(
            tag("b", f"{diagnosis.verdict.capitalize()}. "),
            diagnosis.summary,
            [tag("div", "What may help:"), tag("ul", advice)] if advice else "",
            kind=_KINDS.get(diagnosis.verdict, "bad"),
        )
    )
    train, run = thin(steps)
    lines = [Line("training loss", train, 0)]
    if evals:
        lines.append(Line("validation loss", evals, 1, dots=True))
    best = result.get("best_step")
    mark = (float(best), f"chosen: step {best}") if best else None
    caption = "Mean cross-entropy per trained token, in nats."
    if run > 1:
        caption += f" Each point of the training curve is the mean of {run} steps."
    chart = line_chart("Loss over steps", lines, x_name="step", mark=mark)
    keys = [(line.name, line.colour, line.dots) for line in lines]
    parts.append(figure("Loss over steps", chart, caption, keys))
    if result.get("stopped"):
        parts.append(tag("p", f"Training ended because: {result['stopped']}.", class_="soft"))
    events = [line for line in metrics if line["kind"] == "event"]
    if events:
        rows = [[number(line["step"]), str(line["message"])] for line in events]
        parts.append(fold("What happened on the way", table(["Step", "Event"], rows, ["number"])))
    if evals:
        rows = [[number(step), f"{loss:.4f}"] for step, loss in evals]
        parts.append(fold("Validation loss in numbers", table(["Step", "Loss"], rows, ["number", "number"])))
    return parts


def moved_section(moved: Json | None) -> list[Child]:
    """Return how far each layer moved from the base, magnitude and direction apart.

    Args:
        moved: ``moved.json``; None where the run wrote none.

    """
    if moved is None:
        return [note("moved.json is missing: how far the weights moved was not measured.", kind="missing")]
    layers = sorted(moved["layers"], key=lambda layer: -layer["direction"])
    if not layers:
        return []
    rows = [[str(at["layer"]), f"{at['magnitude']:.3%}", f"{at['direction']:.2e}"] for at in layers]
    means = [sum(at[key] for at in layers) / len(layers) for key in ("magnitude", "direction")]
    said = (
        f"How far the weights moved, on average over {len(layers)} layers: magnitude by {means[0]:.2%}, "
        f"direction by {means[1]:.1e} (1 − cosine); most in {layers[0]['layer']}."
    )
    correlation = moved.get("correlation")
    if correlation is not None:
        ways = "together" if correlation > 0 else "in opposite measure"
        said += f" Layers move the two {ways} (correlation {correlation:+.2f})."
    head = ["Layer", "Magnitude, relative change", "Direction, 1 − cosine"]
    return [tag("p", said), fold("Every layer", table(head, rows, ["text", "number", "number"]))]


def plan_section(plan: Json | None) -> list[Child]:
    """Return what was predicted before training next to what was measured.

    Args:
        plan: ``plan.json``: ``predicted`` and, after training, ``measured``.

    """
    if plan is None:
        return [note("plan.json is missing: nothing was predicted.", kind="missing")]
    predicted = dict(_leaves(plan.get("predicted", {})))
    measured = dict(_leaves(plan.get("measured") or {}))
    both, alone = [], []
    for key, value in {**predicted, **measured}.items():
        if key in predicted and key in measured:
            both.append(
                [
                    _name(key),
                    _show(key, predicted[key]),
                    _show(key, measured[key]),
                    _ratio(predicted[key], measured[key]),
                ]
            )
        else:
            alone.append([_name(key), _show(key, value), "predicted" if key in predicted else "measured"])
    parts: list[Child] = []
    if both:
        head = ["Quantity", "Predicted", "Measured", "Measured ÷ predicted"]
        parts.append(table(head, both, ["text", "number", "number", "number"]))
    else:
        parts.append(note("Nothing has been measured yet to compare the plan with.", kind="missing"))
    if alone:
        parts.append(
            fold("The numbers behind it", table(["Quantity", "Value", "Known as"], alone, ["text", "number"]))
        )
    return parts


def _leaves(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{above}{key}.")
        else:
            yield f"{above}{key}", item


def _name(key: str) -> str:
    named = {"seconds": "time", "tokens_per_s": "tokens per second"}
    return named.get(key, key.replace("_parts.", ": ").replace(".", ": ").replace("_", " "))


def _show(key: str, value: Any) -> Child:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return tag(
            "bdi",
            "none"
            if value is None
            else ", ".join(map(str, value))
            if isinstance(value, list)
            else str(value),
        )
    if any(word in key for word in ("bytes", "memory", "disk", "machine.held")):
        return size(value)
    if "seconds" in key or key.endswith("time"):
        return duration(value)
    return number(value)


def _ratio(predicted: Any, measured: Any) -> str:  # noqa: ANN401 - any JSON value
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in (predicted, measured)
    )
    return f"{measured / predicted:.2f}" if numbers and predicted else ""
