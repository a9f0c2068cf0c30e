"""Models that label, on their way out of training: proof, evaluation, export."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tanzim.adapters.config import form
from tanzim.adapters.folder import own_type
from tanzim.adapters.store import load_adapter
from tanzim.core.errors import ModelError, RunError
from tanzim.core.files import new_folder
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.data.prepare import DataReport
from tanzim.data.store import ExampleStore
from tanzim.evaluate.heads import LabelledItem, evaluate_heads
from tanzim.evaluate.report import EvalReport
from tanzim.export.heads import (
    Logits,
    compare_logits,
    complete_headed,
    logits_of,
    merge_headed,
    plain_headed,
    plain_headed_adapter,
)
from tanzim.export.merge import DTYPES, stored
from tanzim.export.verify import Parity
from tanzim.models.config import ModelConfig
from tanzim.models.load import pick_device, pick_dtype
from tanzim.models.resolve import resolve
from tanzim.pipeline.config import Config
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.tokens import Ready, ready, task_model
from tanzim.pipeline.workspace import trained_fingerprint
from tanzim.train.objectives.choose import make_objective
from tanzim.train.objectives.classification import LabelObjective, predict
from tanzim.train.tokens import Document, TokenStore


def prove_headed(config: Config, folder: RunFolder, setup: Ready, model: nn.Module, card: str) -> Parity:
    """Complete the trained weights' folder, and prove that plain transformers and peft label alike.

    Args:
        config: the project.
        folder: the run.
        setup: base, tokenizer and labels.
        model: what was trained, in memory, holding the chosen weights.
        card: the text of ``README.md``.

    Raises:
        DriftError: the saved weights label otherwise than ``model``.

    """
    adapter = form(config.train.method) == "adapter"
    output = folder.adapter if adapter else folder.model
    complete_headed(output, tokenizer=setup.tokenizer, labels=setup.labels, card=card)
    reference, texts = logits_of(model.float()), _texts(config, folder)
    exported = _plain(config, setup, output) if adapter else plain_headed(output, tagged=_tagged(config))
    return compare_logits(
        reference, logits_of(exported), texts, config=config.export, form="adapter" if adapter else "model"
    )


def evaluate_headed(config: Config, folder: RunFolder, reporter: Reporter) -> EvalReport:
    """Label the test set with what was trained, and compare with its labels.

    Args:
        config: the project; its run must be trained.
        folder: the run.
        reporter: takes the progress.

    """
    data = DataReport.read(folder.data)
    setup = ready(config, data.labels, reporter)
    device = pick_device(config.model)
    model = _trained(config, folder, setup, device=device, dtype=pick_dtype(config.model, device))
    tokens = TokenStore(folder.tokens / "test.arrow")
    if not len(tokens):
        raise RunError(
            "there is no test example to label",
            where=str(tokens.path),
            fix="data.split.test, or data.test_path",
        )
    objective = make_objective(model, config.train.objective)
    assert isinstance(objective, LabelObjective)
    documents = list(tokens)
    with reporter.task("evaluating") as progress:
        objective.choose(TokenStore(folder.tokens / "train.arrow"))
        logits = predict(objective, documents, config.train.tokens_per_pass)
        progress(len(documents), len(documents), "texts")
    found = _items(ExampleStore(folder.data / "test.arrow"), documents, logits)
    dropped = data.splits["test"] - len(found)
    return evaluate_heads(
        found,
        labels=setup.labels,
        counts={label: splits["train"] for label, splits in data.labels.items()},
        skipped={"longer than model.max_length": dropped} if dropped else {},
        fingerprint=trained_fingerprint(folder, setup.base.hash),
        config=config.evaluate,
        out=folder.evaluation,
        seed=config.seed,
    )


def export_headed(
    config: Config, folder: RunFolder, target: Path, *, merge: bool, card: str, reporter: Reporter
) -> Parity:
    """Write the adapter, or the model it makes of the base, and prove that it labels as what was trained.

    Args:
        config: the project.
        folder: the run.
        target: where to.
        merge: whether the adapter is merged into the base weights.
        card: the text of ``README.md``.
        reporter: takes the progress.

    Raises:
        DriftError: the export labels otherwise; nothing is written.

    """
    setup, texts = ready(config, DataReport.read(folder.data).labels, reporter), _texts(config, folder)
    reference = _seen(_trained(config, folder, setup, device=torch.device("cpu"), dtype=torch.float32), texts)
    with reporter.task(f"exporting the {'merged' if merge else 'adapter'} form"), new_folder(target) as out:
        if not merge:
            shutil.copytree(folder.adapter, out, dirs_exist_ok=True)
            exported: Any = _plain(config, setup, out)
        else:
            if own_type(folder.adapter) == "bottleneck":
                raise ModelError(
                    "a bottleneck adapter cannot be merged: it is no change of weights",
                    where=str(folder.adapter),
                    fix="export the adapter itself, without --merge",
                )
            name = config.export.dtype if config.export.dtype != "auto" else stored(setup.base.path)
            merged = _plain(config, setup, folder.adapter)
            merge_headed(merged, out, base=setup.base, labels=setup.labels, dtype=DTYPES[name])
            complete_headed(out, tokenizer=setup.tokenizer, labels=setup.labels, card=card)
            exported = plain_headed(out, tagged=_tagged(config))
        form_ = "merged" if merge else "adapter"
        return compare_logits(reference, logits_of(exported), texts, config=config.export, form=form_)


def _tagged(config: Config) -> bool:
    return task_of(config).model == "token_classification"


def _plain(config: Config, setup: Ready, adapter: Path) -> Any:  # noqa: ANN401 - a model with a head
    """Load an adapter by strangers' tools; one of our own kinds, which they do not know, by ours."""
    if own_type(adapter):
        model = task_model(config, setup, dtype=torch.float32, device=torch.device("cpu"))
        return load_adapter(model, adapter, name="exported", base_hash=setup.base.hash)
    return plain_headed_adapter(
        setup.base, adapter, tagged=_tagged(config), labels=setup.labels, pad=setup.tokenizer.pad_token_id
    )


def _trained(
    config: Config, folder: RunFolder, setup: Ready, *, device: torch.device, dtype: torch.dtype
) -> Any:  # noqa: ANN401 - a transformers or peft model
    """Load what was trained as this project runs it."""
    if folder.adapter.is_dir():
        model = task_model(config, setup, dtype=dtype, device=device)
        return load_adapter(model, folder.adapter, name="trained", base_hash=setup.base.hash).eval()
    whole = resolve(ModelConfig(name=str(folder.model)))
    trained = Ready(whole, setup.tokenizer, setup.encoder, setup.labels)
    return task_model(config, trained, dtype=dtype, device=device)


def _seen(model: nn.Module, texts: list[list[int]]) -> Logits:
    """Look at the texts now, so that the model can go."""
    logits = logits_of(model)
    known = {tuple(ids): logits(ids) for ids in texts}
    return lambda ids: known[tuple(ids)]


def _texts(config: Config, folder: RunFolder) -> list[list[int]]:
    """Return the texts an export is compared on: held-out ones, or where there are none, trained ones."""
    for split in ("test", "validation", "train"):
        tokens = TokenStore(folder.tokens / f"{split}.arrow")
        if len(tokens):
            return [document.ids.tolist() for document in tokens[: config.export.prompts]]
    return []


def _items(store: ExampleStore, documents: list[Document], logits: list[Any]) -> list[LabelledItem]:
    """Put what was said of every document beside its example."""
    places = Counter((d.provenance.source, d.provenance.row) for d in documents)
    assert max(places.values()) == 1
    by_place = {(d.provenance.source, d.provenance.row): number for number, d in enumerate(documents)}
    found = []
    for index, example in enumerate(store):
        number = by_place.get((example.provenance.source, example.provenance.row))
        if number is not None:
            right = example.tags or (example.label,)
            found.append(
                LabelledItem(index, example.text, example.words, example.provenance, right, logits[number])
            )
    return found
