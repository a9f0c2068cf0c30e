"""``tanzim plan``: what a run will take, before it starts; and afterwards what it took."""

from __future__ import annotations

import torch

from tanzim.core.files import read_json, write_json
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.core.units import size
from tanzim.models.load import pick_device, pick_dtype
from tanzim.models.quiet import quiet
from tanzim.pipeline.config import Config
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.tokens import Ready, ready, tokenise
from tanzim.pipeline.workspace import open_run
from tanzim.train.config import TrainConfig
from tanzim.train.engine import TrainResult
from tanzim.train.machine import probe
from tanzim.train.plan import Plan, make_plan, measured
from tanzim.train.rehearsal import Rehearsed, rehearse
from tanzim.train.shapes import shapes
from tanzim.train.tokens import TokenStore

FEW_DOCUMENTS = 16  # that the rehearsal makes its passes of


def plan(config: Config, *, overwrite: bool = False, reporter: Reporter | None = None) -> Plan:
    """Predict memory, disk, tokens, steps and time of a run, from its data and the model's sizes.

    Args:
        config: the project; its data is prepared and tokenised for this.
        overwrite: delete an existing run of that name first.
        reporter: takes the progress.

    Raises:
        DataError: the data cannot be used.
        PlanError: the job cannot fit; the message names a change that would make it fit.

    """
    reporter = reporter or Reporter()
    report = prepare_data(config, overwrite=overwrite, reporter=reporter)
    folder = open_run(config)
    setup = ready(config, report.labels, reporter)
    tokenise(config, folder, setup, list(report.labels), reporter)
    predicted = plan_run(config, folder, setup)
    predicted.check()
    return predicted


def plan_run(config: Config, folder: RunFolder, setup: Ready) -> Plan:
    """Predict a run whose data is tokenised, and keep the prediction in its ``plan.json``."""
    device = pick_device(config.model)
    dtype = pick_dtype(config.model, device)
    tokens = TokenStore(folder.tokens / "train.arrow")
    kind, labels = task_of(config).model, len(setup.labels)
    machine = probe(folder.path, device=device, dtype=dtype)

    def small_steps(train: TrainConfig, dtype: torch.dtype) -> Rehearsed:
        few = tokens[:FEW_DOCUMENTS]
        with quiet():
            return rehearse(setup.base.path, train, few, dtype=dtype, device=device, kind=kind, labels=labels)

    predicted = make_plan(
        shapes(setup.base.path, kind=kind, labels=labels),
        small_steps,
        config.train,
        machine,
        lengths=tokens.lengths,
        trained=tokens.trained,
        validation_tokens=int(TokenStore(folder.tokens / "validation.arrow").lengths.sum()),
        seed=config.seed,
        dtype=dtype,
        classes=tokens.classes if config.train.balanced_batches else None,
    )
    write_json(folder.plan, {"predicted": predicted.predicted()})
    return predicted


def summary(plan: Plan) -> str:
    """Say a plan in one line."""
    return (
        f"{plan.steps:,} steps, {plan.tokens:,} tokens ({plan.trained_tokens:,} trained), about "
        f"{plan.seconds / 60:.1f} minutes, {size(plan.peak_memory)} of memory, "
        f"{size(sum(plan.disk.values()))} of disk"
    )


def write_measured(folder: RunFolder, result: TrainResult) -> None:
    """Put what the training took next to what was predicted."""
    write_json(folder.plan, read_json(folder.plan) | {"measured": measured(result)})
