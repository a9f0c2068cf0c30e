"""Embedding models on their way out of training: proof, evaluation, export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tanzim.adapters.config import form
from tanzim.adapters.store import load_adapter
from tanzim.core.errors import RunError
from tanzim.core.files import new_folder, write_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Json, Progress
from tanzim.core.run import RunFolder
from tanzim.data.prepare import DataReport
from tanzim.data.store import ExampleStore
from tanzim.evaluate.embeddings import Sought, Vectors, evaluate_embeddings, seek
from tanzim.evaluate.report import BASE, TUNED, EvalReport
from tanzim.export.embeddings import (
    compare_hidden,
    complete_encoder,
    hidden_of,
    plain_encoder,
    plain_encoder_adapter,
)
from tanzim.export.verify import Parity
from tanzim.models.config import ModelConfig
from tanzim.models.encode_pairs import PairEncoder, pair_texts
from tanzim.models.load import pick_device, pick_dtype
from tanzim.models.resolve import resolve
from tanzim.pipeline.config import Config
from tanzim.pipeline.tokens import Ready, ready, task_model
from tanzim.pipeline.workspace import trained_fingerprint
from tanzim.train.objectives.base import evaluating
from tanzim.train.objectives.config import ContrastiveConfig
from tanzim.train.objectives.contrastive import Contrastive, texts
from tanzim.train.tokens import TokenStore

_TOGETHER = 32  # texts that go through the model at once


def prove_embeddings(config: Config, folder: RunFolder, setup: Ready, model: nn.Module, card: str) -> Parity:
    """Complete the trained weights' folder, and prove that plain transformers and peft give the same vectors.

    Args:
        config: the project.
        folder: the run.
        setup: base and tokenizer.
        model: what was trained, in memory, holding the chosen weights.
        card: the text of ``README.md``.

    Raises:
        DriftError: the saved weights give other vectors than ``model``.

    """
    adapter = form(config.train.method) == "adapter"
    output = folder.adapter if adapter else folder.model
    complete_encoder(output, tokenizer=setup.tokenizer, how=_how(config), card=card)
    exported = plain_encoder_adapter(setup.base, output) if adapter else plain_encoder(output)
    return compare_hidden(
        hidden_of(model.float()),
        hidden_of(exported),
        _proof_texts(config, folder),
        config=config.export,
        form="adapter" if adapter else "model",
    )


def evaluate_embedded(config: Config, folder: RunFolder, reporter: Reporter) -> EvalReport:
    """Let base and tuned model look for the matches of the test set.

    Args:
        config: the project; its run must be trained.
        folder: the run.
        reporter: takes the progress.

    Raises:
        RunError: there is no test example.

    """
    setup = ready(config, DataReport.read(folder.data).labels, reporter)
    store = ExampleStore(folder.data / "test.arrow")
    if not len(store):
        raise RunError(
            "there is no test example to look for",
            where=str(folder.data / "test.arrow"),
            fix="data.split.test, or data.test_path",
        )
    sought = seek([(place, one.provenance, pair_texts(one)) for place, one in enumerate(store)])
    fingerprints = {BASE: setup.base.hash, TUNED: trained_fingerprint(folder, setup.base.hash)}
    vectors = {}
    for name in (BASE, TUNED) if config.evaluate.base else (TUNED,):
        model = _model(config, folder, setup, tuned=name == TUNED)
        with reporter.task(f"embedding the test set ({name})") as progress:
            vectors[name] = _embed(model, setup, config, sought, progress)
        del model
    return evaluate_embeddings(
        sought,
        vectors,
        fingerprints=fingerprints,
        skipped={},
        config=config.evaluate,
        out=folder.evaluation,
        seed=config.seed,
    )


def export_embedded(
    config: Config, folder: RunFolder, target: Path, *, merge: bool, card: str, reporter: Reporter
) -> Parity:
    """Write the adapter, or the model it makes of the base, and prove that its vectors are those trained.

    Args:
        config: the project.
        folder: the run.
        target: where to.
        merge: whether the adapter is merged into the base weights.
        card: the text of ``README.md``.
        reporter: takes the progress.

    Raises:
        DriftError: the export gives other vectors; nothing is written.

    """
    setup = ready(config, DataReport.read(folder.data).labels, reporter)
    reference = hidden_of(_model(config, folder, setup, tuned=True, exact=True))
    with reporter.task(f"exporting the {'merged' if merge else 'adapter'} form"), new_folder(target) as out:
        if merge:
            merged: Any = plain_encoder_adapter(setup.base, folder.adapter).merge_and_unload(safe_merge=True)
            merged.save_pretrained(str(out))
            write_json(out / "tanzim.json", {"base": setup.base.name, "base_hash": setup.base.hash})
            complete_encoder(out, tokenizer=setup.tokenizer, how=_how(config), card=card)
            exported = plain_encoder(out)
        else:
            shutil.copytree(folder.adapter, out, dirs_exist_ok=True)
            exported = plain_encoder_adapter(setup.base, out)
        return compare_hidden(
            reference,
            hidden_of(exported),
            _proof_texts(config, folder),
            config=config.export,
            form="merged" if merge else "adapter",
        )


def _objective(config: Config) -> ContrastiveConfig:
    objective = config.train.objective
    assert isinstance(objective, ContrastiveConfig)
    return objective


def _how(config: Config) -> Json:
    objective = _objective(config)
    return {"pooling": objective.pooling, "normalize": objective.normalize}


def _model(config: Config, folder: RunFolder, setup: Ready, *, tuned: bool, exact: bool = False) -> Any:  # noqa: ANN401 - a transformers or peft model
    """Load the base, or what was trained, as this project runs it; ``exact``: in float32 on the CPU."""
    device = torch.device("cpu") if exact else pick_device(config.model)
    dtype = torch.float32 if exact else pick_dtype(config.model, device)
    if tuned and not folder.adapter.is_dir():
        setup = Ready(resolve(ModelConfig(name=str(folder.model))), setup.tokenizer, setup.encoder)
    model: Any = task_model(config, setup, dtype=dtype, device=device)
    if tuned and folder.adapter.is_dir():
        model = load_adapter(model, folder.adapter, name="trained", base_hash=setup.base.hash)
    return model.eval()


@torch.no_grad()
def _embed(
    model: nn.Module, setup: Ready, config: Config, sought: Sought, progress: Progress
) -> tuple[Vectors, Vectors]:
    """Return the vectors of anchors and candidates."""
    assert isinstance(setup.encoder, PairEncoder)
    objective = Contrastive(model, _objective(config))
    ids = [row[: config.model.max_length] for row in setup.encoder.ids([*sought.anchors, *sought.candidates])]
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    found: dict[int, Any] = {}
    with evaluating(model):
        for start in range(0, len(order), _TOGETHER):
            part = order[start : start + _TOGETHER]
            rows = objective.embed([tuple(ids[index]) for index in part]).float().cpu().numpy()
            found |= dict(zip(part, rows, strict=True))
            progress(start + len(part), len(order), "texts")
    everything = np.stack([found[index] for index in range(len(ids))])
    return everything[: len(sought.anchors)], everything[len(sought.anchors) :]


def _proof_texts(config: Config, folder: RunFolder) -> list[tuple[int, ...]]:
    """Return the texts an export is compared on: held-out ones, or where there are none, trained ones."""
    for split in ("test", "validation", "train"):
        tokens = TokenStore(folder.tokens / f"{split}.arrow")
        if len(tokens):
            return [text for document in tokens[: config.export.prompts] for text in texts(document)]
    return []
