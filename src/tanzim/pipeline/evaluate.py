"""Stage 5 of a run: base and tuned model on the same held-out items, side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tanzim.core.errors import RunError
from tanzim.core.files import sha256
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.data.store import ExampleStore
from tanzim.evaluate.answers import HeldoutLoss, System
from tanzim.evaluate.measure import evaluate
from tanzim.evaluate.report import EvalReport, table_rows
from tanzim.infer.engine import Engine
from tanzim.pipeline.config import Config
from tanzim.pipeline.embeddings import evaluate_embedded
from tanzim.pipeline.form import form_of
from tanzim.pipeline.heads import evaluate_headed
from tanzim.pipeline.opened import Opened, open_base
from tanzim.pipeline.prepare import prepare_data
from tanzim.pipeline.proof import write_card
from tanzim.pipeline.report import write_report
from tanzim.pipeline.routed import adapters_of, route, task_name, tasks_of
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.tokens import conversations
from tanzim.pipeline.workspace import open_run
from tanzim.train.heldout import heldout_loss
from tanzim.train.tokens import Document, TokenStore


def evaluate_run(config: Config, *, reporter: Reporter | None = None) -> EvalReport:
    """Measure the base and the tuned model on the test set, and write the run's report page.

    Args:
        config: the project; its run must be trained.
        reporter: takes the progress.

    Raises:
        RunError: the run is not trained yet.
        DataError: another system's answers do not fit the test set.

    """
    reporter = reporter or Reporter()
    folder = trained_run(config)
    manifest = folder.read_manifest()
    task = task_of(config)
    if task.headed:
        report = evaluate_headed(config, folder, reporter)
    elif not task.writes:
        report = evaluate_embedded(config, folder, reporter)
    else:
        report = _evaluate_text(config, folder, reporter)
    folder.write_manifest(replace(manifest, status="evaluated"))
    write_card(config, folder, table_rows(report))
    write_report(folder)
    return report


def _evaluate_text(config: Config, folder: RunFolder, reporter: Reporter) -> EvalReport:
    """Measure the answers of base and tuned model."""
    data = prepare_data(config, reporter=reporter)
    examples = list(conversations(ExampleStore(folder.data / "test.arrow"), config.data, list(data.labels)))
    systems, opened = _systems(config, folder, reporter)
    with reporter.task("evaluating") as progress:
        return evaluate(
            examples,
            systems,
            renderer=opened.renderer,
            config=config.evaluate,
            out=folder.evaluation,
            seed=config.seed,
            labels=list(data.labels),
            group=(lambda example: task_name(config, example.provenance)) if tasks_of(config) else None,
            progress=progress,
        )


def trained_run(config: Config) -> RunFolder:
    """Return the run directory of ``config``.

    Raises:
        RunError: it holds no trained model.

    """
    folder = RunFolder(Path(config.runs_dir) / config.name)
    if not (folder.adapter.is_dir() or folder.model.is_dir()):
        raise RunError(
            f"the run '{config.name}' is not trained yet", where=str(folder.path), fix="tanzim train"
        )
    return open_run(config)


def _systems(config: Config, folder: RunFolder, reporter: Reporter) -> tuple[list[System], Opened]:
    """Load base and tuned model; a tuned adapter shares the base's weights, a tuned model has its own."""
    opened = open_base(config.model, form=form_of(config.train.method), reporter=reporter)
    tokens = TokenStore(folder.tokens / "test.arrow")
    hash_ = opened.base.hash
    base = System("base", opened.engine, None, hash_, measure_loss(opened.engine, tokens, config))
    if folder.adapter.is_dir():
        parts = [hash_]
        for name, path in adapters_of(config, folder):
            opened.engine.add_adapter(name, path)
            parts.append(sha256(path / "adapter_model.safetensors"))
        loss = measure_loss(opened.engine, tokens, config)
        return [
            base,
            System("tuned", opened.engine, config.name, "/".join(parts), loss, route(config)),
        ], opened
    whole = open_base(config.model.model_copy(update={"name": str(folder.model), "revision": None}))
    tuned = System("tuned", whole.engine, None, whole.base.hash, measure_loss(whole.engine, tokens, config))
    return [base, tuned], opened


def measure_loss(engine: Engine, tokens: TokenStore, config: Config) -> HeldoutLoss:
    """Return the function that measures the loss of ``tokens`` under an adapter of ``engine``.

    Where every task has an adapter of its own, each measures the documents of its task.
    """
    ways = route(config)

    def measure(adapter: str | None) -> tuple[float, int]:
        parts: dict[str | None, list[Document]] = {}
        for document in tokens if ways is not None and adapter is not None else ():
            parts.setdefault(ways(document.provenance) if ways else adapter, []).append(document)
        total, count = 0.0, 0
        for name, part in parts.items() or [(adapter, tokens)]:
            with engine.lend(name) as model:
                loss, trained = heldout_loss(model, part, config.train.tokens_per_pass)
            total, count = total + loss, count + trained
        return total, count

    return measure
