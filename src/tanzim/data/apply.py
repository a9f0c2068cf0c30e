"""One step as a plain function: examples in, examples out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tanzim.core.errors import ConfigError
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Json, Progress, no_progress
from tanzim.data.chain import run_step
from tanzim.data.config import StepConfig, step_configs
from tanzim.data.executor import Local
from tanzim.data.ledger import StepReport
from tanzim.data.shards import write_shards
from tanzim.data.steps import STEPS


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of a step.

    Args:
        examples: what came out, in order.
        removed: what was taken out: lines of ``rejected.jsonl`` with file, row, reason and detail.
        report: the counts.

    """

    examples: list[Example]
    removed: list[Json]
    report: StepReport


def apply_step(
    examples: Iterable[Example],
    step: StepConfig | Mapping[str, Any],
    *,
    powers: Powers | None = None,
    seed: int = 13,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Applied:
    """Run one step on examples in memory; nothing is cached.

    Args:
        examples: any number of examples.
        step: its config, or the same as a mapping: ``{"type": "dedup_fuzzy", "threshold": 0.8}``.
        powers: what it may need: an embedding model, a language model, a scorer.
        seed: of its random choices.
        workers: processes; None takes one for each core.
        progress: told the examples done.

    Raises:
        ConfigError: there is no such step, or it has no such setting.
        DataError: the step cannot work on these examples.

    """
    config = step_config(step) if isinstance(step, Mapping) else step
    with tempfile.TemporaryDirectory(prefix="tanzim-step-") as folder:
        root = Path(folder)
        done = run_step(
            config,
            write_shards(root / "in", examples),
            root,
            seed=seed,
            powers=powers or Powers(),
            executor=Local(workers),
            progress=progress,
        )
        lines = [line for path in done.rejected for line in path.read_text(encoding="utf-8").splitlines()]
        return Applied(list(done.dataset), [json.loads(line) for line in lines], done.report)


def step_config(values: Mapping[str, Any]) -> StepConfig:
    """Make the config of a step from its values.

    Raises:
        ConfigError: there is no such step, or it has no such setting.

    """
    if values.get("type") not in STEPS:
        near = get_close_matches(str(values.get("type")), STEPS, 1, 0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"there is no step '{values.get('type')}'{hint}",
            where="type",
            fix=f"one of: {', '.join(sorted(STEPS))}",
        )
    adapter: TypeAdapter[StepConfig] = TypeAdapter(StepConfig)
    try:
        return adapter.validate_python(dict(values))
    except ValidationError as error:
        keys = ", ".join(key for key in step_configs()[values["type"]].model_fields if key != "type")
        faults = []
        for fault in error.errors():
            key = ".".join(map(str, fault["loc"][1:]))
            said = f"{key}: {fault['msg']} (found {fault['input']!r})"
            faults.append(f"unknown key '{key}'" if fault["type"] == "extra_forbidden" else said)
        where = f"step {values['type']}"
        raise ConfigError("; ".join(faults), where=where, fix=f"its keys: {keys}") from None
