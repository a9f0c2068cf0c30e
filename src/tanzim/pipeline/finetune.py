"""Stages 2 to 4 of a run, top to bottom: data, tokens, plan, weights, training, a proven adapter.

Left out here: how each is done (their rooms), and the evaluation (`evaluate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tanzim.adapters.attach import attach
from tanzim.adapters.compiled import compile_layers, plain_layers
from tanzim.adapters.config import form
from tanzim.adapters.fast import accelerate
from tanzim.adapters.method import Method
from tanzim.core.errors import ConfigError
from tanzim.core.progress import Reporter
from tanzim.core.records import Json, Progress
from tanzim.core.run import RunFolder, RunManifest
from tanzim.data.prepare import DataReport
from tanzim.models.kernels.attention import hide_from_compiler
from tanzim.models.load import HEADED, pick_device, pick_dtype
from tanzim.models.quiet import quiet
from tanzim.pipeline.config import Config
from tanzim.pipeline.launch import RANKS, run_as_ranks, starts_ranks
from tanzim.pipeline.moved import write_moved
from tanzim.pipeline.plan import plan_run, summary, write_measured
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.proof import finish, trained_folder
from tanzim.pipeline.routed import check_tasks
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.teacher import load_teacher
from tanzim.pipeline.tokens import Ready, SplitTokens, ready, task_model, tokenise
from tanzim.pipeline.workspace import open_run
from tanzim.train.checkpoint import load_weights
from tanzim.train.distributed import join
from tanzim.train.engine import train
from tanzim.train.ranks import Ranks
from tanzim.train.tokens import TokenStore


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A finished training.

    Args:
        folder: the run directory.
        output: the adapter, or the model after full fine-tuning.
        result: steps, losses, tokens, seconds, peak memory.

    """

    folder: RunFolder
    output: Path
    result: Json


def finetune(config: Config, *, overwrite: bool = False, reporter: Reporter | None = None) -> Finetuned:
    """Fine-tune as ``config`` says; go on where an interrupted run stopped.

    Args:
        config: the project.
        overwrite: delete an existing run of that name first.
        reporter: takes every automatic choice, and the progress.

    Raises:
        DataError: the data cannot be used.
        RenderError: a sample has no trained token, or an untrained end.
        PlanError: the job cannot fit this machine; the message names a change that would make it fit.
        ModelError: the teacher has another vocabulary, or a model cannot be loaded.
        TrainError: the run had to stop; its checkpoints stay.
        DriftError: the saved adapter does not behave as what was trained.

    """
    reporter = reporter or Reporter()
    if starts_ranks(config.launch):
        folder = run_as_ranks(config, overwrite=overwrite, reporter=reporter)
        return Finetuned(folder, trained_folder(config, folder), folder.read_manifest().result)
    ranks = join(config.launch, Path(config.runs_dir) / config.name / RANKS)
    reporter = reporter if ranks.first else Reporter()
    with ranks.in_turn():
        report = prepare_data(config, overwrite=overwrite, reporter=reporter)
        folder = open_run(config)
        manifest = folder.read_manifest()
        trained = manifest.status in ("trained", "evaluated")
        if not trained:
            setup = ready(config, report.labels, reporter)
            splits = tokenise(config, folder, setup, list(report.labels), reporter)
    if ranks.same({"trained": trained})["trained"]:
        reporter.say(f"'{config.name}' is trained already")
        ranks.leave()
        return Finetuned(folder, trained_folder(config, folder), manifest.result)
    manifest = _describe(manifest, config, setup, report, splits)
    if ranks.first:
        check_tasks(config, folder)
        plan = plan_run(config, folder, setup)
        reporter.say(f"plan: {summary(plan)}")
        plan.check()
        folder.write_manifest(_choices(manifest, reporter))

    method, autocast = prepare_method(config, setup, reporter, ranks)
    teacher = load_teacher(config, setup.tokenizer, device=pick_device(config.model), reporter=reporter)
    validation = TokenStore(folder.tokens / "validation.arrow")
    with reporter.task("training") as progress, quiet():
        result = train(
            method,
            TokenStore(folder.tokens / "train.arrow"),
            validation if len(validation) else None,
            config.train,
            folder,
            seed=config.seed,
            autocast=autocast,
            teacher=teacher,
            on_line=_show(progress, reporter),
            ranks=ranks,
        )
    manifest = replace(_choices(manifest, reporter), result=_plain(asdict(result)))
    ranks.leave()
    if not ranks.first:
        return Finetuned(folder, result.output, manifest.result)
    plain_layers(method.model)
    write_measured(folder, result)
    if ranks.together:  # this rank held a part of the model only
        method, _ = prepare_method(config, setup, Reporter(), Ranks())
        load_weights(method, folder.checkpoints / f"checkpoint-{result.best_step}")
    finish(config, folder, setup, method.model, manifest, reporter)
    write_moved(folder, setup.base, method.model)
    folder.write_manifest(replace(manifest, status="trained"))
    return Finetuned(folder, result.output, manifest.result)


def _choices(manifest: RunManifest, reporter: Reporter) -> RunManifest:
    return replace(manifest, environment=manifest.environment | {"choices": reporter.choices})


def prepare_method(
    config: Config, setup: Ready, reporter: Reporter, ranks: Ranks
) -> tuple[Method, torch.dtype | None]:
    """Load the base and prepare it for training, divided among the ranks if that is the strategy.

    Returns:
        The method, and the precision of its products where it is not that of the trained weights, which
        are float32.

    """
    device = pick_device(config.model)
    dtype = pick_dtype(config.model, device)
    if config.model.device == "auto":
        reporter.choose(
            "model.device", device, "a CUDA device is there" if device.type == "cuda" else "no GPU found"
        )
    if config.model.dtype == "auto":
        reporter.choose(
            "model.dtype", str(dtype).removeprefix("torch."), f"what {device.type} computes fastest"
        )
    whole = form(config.train.method) == "model"
    # A model to be divided goes to the device layer by layer.
    start = torch.device("cpu") if ranks.together else device
    base, task = setup.base, task_of(config)
    model = task_model(config, setup, dtype=torch.float32 if whole else dtype, device=start)
    method = attach(model, config.train.method, seed=config.seed, base_hash=base.hash, base_name=base.name)
    autocast = None if dtype == torch.float32 else dtype
    if config.train.compile:
        if ranks.together:
            raise ConfigError(
                "train.compile takes whole layers, and launch.strategy=fsdp divides them",
                where="train.compile",
                fix="set it to false, or launch.strategy to ddp",
            )
        with reporter.task("compiling the layers"):
            hide_from_compiler()
            reporter.say(compile_layers(method.model, autocast=autocast))
    elif not whole and task.model in ("causal", *HEADED) and not ranks.together:
        for note in accelerate(method.model):
            reporter.say(note)
    ranks.shard(method, half=dtype == torch.float16)
    count = sum(parameter.numel() for parameter in method.parameters.values())
    total = sum(parameter.numel() for parameter in method.model.parameters())
    reporter.say(f"training {count:,} of {total:,} parameters ({count / total:.2%})")
    return method, autocast


def _show(progress: Progress, reporter: Reporter) -> Callable[[Json], None]:
    """Turn lines of ``metrics.jsonl`` into progress: step, loss, tokens per second, validation loss."""
    latest: dict[str, str] = {}

    def on_line(line: Json) -> None:
        reporter.line(line)
        if line["kind"] == "event":
            reporter.say(line["message"])
            return
        if line["kind"] == "eval":
            latest["eval"] = f" · validation {line['loss']:.3f}"
            return
        if line["kind"] != "train":
            return
        note = f"loss {line['loss']:.3f}{latest.get('eval', '')} · {line['tokens_per_s']:.0f} tokens/s"
        progress(line["step"], line["steps"], note)

    return on_line


def _describe(
    manifest: RunManifest, config: Config, setup: Ready, report: DataReport, splits: dict[str, SplitTokens]
) -> RunManifest:
    base = setup.base
    counts = {
        name: {k: v for k, v in asdict(split).items() if k != "histogram"} for name, split in splits.items()
    }
    return replace(
        manifest,
        seed=config.seed,
        base={"name": base.name, "source": base.source, "hash": base.hash, "license": base.license},
        data={
            "format": report.format,
            "fingerprints": report.fingerprints,
            "rejected": report.rejected,
            "overlong": config.model.overlong,
            "splits": counts,
        },
        template=setup.encoder.template,
    )


def _plain(value: dict[str, Any]) -> Json:
    """Return ``value`` as JSON holds it: paths as names, no infinities."""
    return {
        key: item.name
        if isinstance(item, Path)
        else None
        if isinstance(item, float) and not math.isfinite(item)
        else item
        for key, item in value.items()
    }
