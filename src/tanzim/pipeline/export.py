"""``tanzim export``: the adapter, or a whole model, proven equal to what was trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.errors import RunError
from tanzim.core.files import new_folder, read_json
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.data.prepare import DataReport
from tanzim.evaluate.report import EvalReport, table_rows
from tanzim.export.adapter import verify_adapter
from tanzim.export.merge import merge as merge_adapter
from tanzim.export.verify import observer
from tanzim.pipeline.adapters import free_folder
from tanzim.pipeline.config import Config
from tanzim.pipeline.embeddings import export_embedded
from tanzim.pipeline.evaluate import trained_run
from tanzim.pipeline.form import form_of
from tanzim.pipeline.heads import export_headed
from tanzim.pipeline.opened import open_base
from tanzim.pipeline.proof import card, proof_prompts, said
from tanzim.pipeline.routed import tasks_of
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.tokens import ready


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an export is, and how it was proven, a line per form."""

    path: Path
    proof: tuple[str, ...]


def export_run(
    config: Config,
    *,
    merge: bool = False,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Exported:
    """Write the trained adapter, or with ``merge`` a whole model, and prove it equals what was trained.

    Args:
        config: the project; its run must be trained.
        merge: merge the adapter into the base weights.
        output: where to; unset: ``exports/`` in the run directory.
        reporter: takes the progress.

    Raises:
        RunError: the run is not trained, or has no adapter to merge.
        ConfigError: ``output`` exists and is no export.
        DriftError: the export behaves otherwise than what was trained; nothing is written.

    """
    reporter = reporter or Reporter()
    folder = trained_run(config)
    kind = "merged" if merge else "adapter"
    target = Path(output) if output is not None else folder.path / "exports" / kind
    free_folder(target)
    if not folder.adapter.is_dir():
        raise RunError(
            "every weight was trained: there is no adapter to export",
            where=str(folder.path),
            fix=f"the whole model is in {folder.model}",
        )
    if tasks_of(config):
        raise RunError(
            "each task has an adapter of its own, ready to use",
            where=str(folder.adapter),
            fix="take the folder of a task in it; peft and tanzim chat open it",
        )
    task = task_of(config)
    if not task.writes:
        text = card(config, folder.read_manifest(), _table(folder), library="transformers" if merge else None)
        write = export_headed if task.headed else export_embedded
        parity = write(config, folder, target, merge=merge, card=text, reporter=reporter)
        return Exported(target, (said(parity),))
    setup = ready(config, DataReport.read(folder.data).labels, reporter)
    prompts = proof_prompts(config, folder, setup)
    table = _table(folder)
    with reporter.task(f"exporting the {kind} form"):
        if merge:
            parity = merge_adapter(
                setup.base,
                folder.adapter,
                target,
                config.export,
                prompts,
                tokenizer=setup.tokenizer,
                stop_ids=setup.renderer.stop_ids,
                card=card(config, folder.read_manifest(), table, library="transformers"),
            )
            return Exported(target, (said(parity),))
        opened = open_base(
            config.model.model_copy(update={"dtype": "float32", "device": "cpu"}),
            form=form_of(config.train.method),
            reporter=reporter,
        )
        opened.engine.add_adapter(config.name, folder.adapter)
        with opened.engine.lend(config.name) as model, new_folder(target) as temporary:
            shutil.copytree(folder.adapter, temporary, dirs_exist_ok=True)
            parity = verify_adapter(
                temporary,
                base=setup.base,
                reference=observer(
                    model, stop_ids=setup.renderer.stop_ids, new_tokens=config.export.new_tokens
                ),
                prompts=prompts,
                config=config.export,
                stop_ids=setup.renderer.stop_ids,
                decode=setup.tokenizer.decode,
            )
    return Exported(target, (said(parity),))


def _table(folder: RunFolder) -> list[list[str]]:
    """Return the table of the run's evaluation, [] if there was none."""
    found = folder.evaluation / "report.json"
    return table_rows(EvalReport.from_json(read_json(found))) if found.is_file() else []
