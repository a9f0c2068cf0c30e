"""What leaves a run is complete and proven: card, tokenizer, and the same behaviour as what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from tanzim.adapters.config import form
from tanzim.adapters.folder import OWN_TYPES
from tanzim.adapters.routed import use_only
from tanzim.core.files import write_text
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder, RunManifest
from tanzim.data.prepare import DataReport
from tanzim.data.store import ExampleStore
from tanzim.export.adapter import complete, verify_adapter, verify_model
from tanzim.export.card import model_card
from tanzim.export.verify import Parity, observer
from tanzim.models.quantised import in_float32
from tanzim.pipeline.config import Config
from tanzim.pipeline.embeddings import prove_embeddings
from tanzim.pipeline.heads import prove_headed
from tanzim.pipeline.routed import tasks_of
from tanzim.pipeline.tasks import task_of
from tanzim.pipeline.tokens import Ready, conversations


def finish(
    config: Config,
    folder: RunFolder,
    setup: Ready,
    model: nn.Module,
    manifest: RunManifest,
    reporter: Reporter,
) -> Parity:
    """Complete the trained weights' folder, and prove that strangers' tools make the same model of it.

    Args:
        config: the project.
        folder: the run.
        setup: base, tokenizer and renderer.
        model: what was trained, in memory, holding the chosen weights.
        manifest: the run's manifest, for the card.
        reporter: takes the outcome.

    Raises:
        DriftError: the saved weights behave otherwise than ``model``.

    """
    task = task_of(config)
    if not task.writes:
        prove = prove_headed if task.headed else prove_embeddings
        with reporter.task("proving the export"):
            parity = prove(config, folder, setup, model, card(config, manifest))
        reporter.say(said(parity))
        return parity
    output, text = trained_folder(config, folder), card(config, manifest)
    with reporter.task("proving the export"):
        for name in tasks_of(config):
            use_only(model, name)
            parity = _prove_text(config, folder, setup, model, output / name, text)
            reporter.say(f"{name}: {said(parity)}")
        if not tasks_of(config):
            parity = _prove_text(config, folder, setup, model, output, text)
            reporter.say(said(parity))
    return parity


def _prove_text(
    config: Config, folder: RunFolder, setup: Ready, model: nn.Module, output: Path, text: str
) -> Parity:
    """Complete the folder ``output``, its card ``text``, and prove that it writes what ``model`` does."""
    stop_ids = setup.renderer.stop_ids
    complete(output, base=setup.base, tokenizer=setup.tokenizer, stop_ids=stop_ids, card=text)
    common = {
        # In float32, as the folder is loaded: half precision alone would count as drift.
        "reference": observer(in_float32(model), stop_ids=stop_ids, new_tokens=config.export.new_tokens),
        "prompts": proof_prompts(config, folder, setup),
        "config": config.export,
        "stop_ids": stop_ids,
        "decode": setup.tokenizer.decode,
    }
    if form(config.train.method) == "adapter":
        return verify_adapter(output, base=setup.base, **common)
    return verify_model(output, **common)


def trained_folder(config: Config, folder: RunFolder) -> Path:
    """Return where a run's trained weights lie: ``adapter/``, or ``model/`` where there is no adapter."""
    return folder.adapter if form(config.train.method) == "adapter" else folder.model


def said(parity: Parity) -> str:
    """Say a proof in one line."""
    text = f"{parity.form} form: {parity.texts_equal} of {parity.prompts} greedy texts equal"
    if "vectors_within" in parity.details:
        within = parity.details["vectors_within"]
        return f"{parity.form} form: vectors of {parity.prompts} texts equal within {within:.1e}"
    if "labels_equal" in parity.details:
        equal, texts = parity.details["labels_equal"], parity.prompts
        text = f"{parity.form} form: {equal} of {parity.positions} labels of {texts} texts equal"
    if parity.max_logprob_difference is not None:
        text += (
            f", log-probabilities within {parity.max_logprob_difference:.1e} (tolerance {parity.tolerance:g})"
        )
    return text


def proof_prompts(config: Config, folder: RunFolder, setup: Ready) -> list[list[int]]:
    """Return the prompts an export is compared on: held-out ones, or where there are none, trained ones."""
    labels = list(DataReport.read(folder.data).labels)
    prompts: list[list[int]] = []
    for split in ("test", "validation", "train"):
        store = ExampleStore(folder.data / f"{split}.arrow")
        few = (store[index] for index in range(min(len(store), 4 * config.export.prompts)))
        for example in conversations(few, config.data, labels):
            if example.kind == "messages" and len(example.messages) > 1:
                prompts.append(setup.renderer.prompt(example.messages[:-1], example.tools))
            elif example.text:
                prompts.append(setup.tokenizer(example.text, add_special_tokens=False)["input_ids"][:32])
        if len(prompts) >= config.export.prompts:
            break
    return prompts[: config.export.prompts]


def card(
    config: Config, manifest: RunManifest, table: Sequence[Sequence[str]] = (), *, library: str | None = None
) -> str:
    """Return the model card of a run; ``library`` opens it: by its method, if nothing else is said."""
    train = config.train
    settings = {
        "method": train.method.model_dump(),
        "objective": train.objective.type,
        "learning_rate": train.learning_rate,
        "epochs": train.epochs,
        "tokens_per_step": train.tokens_per_step,
        "train_on": config.model.train_on,
    }
    kind = "tanzim" if train.method.type in OWN_TYPES else "peft"
    library = library or (kind if form(train.method) == "adapter" else "transformers")
    return model_card(manifest, library=library, settings=settings, table=table)


def write_card(config: Config, folder: RunFolder, table: Sequence[Sequence[str]]) -> None:
    """Write the card again, now with the evaluation's table."""
    output = trained_folder(config, folder)
    for place in [output / name for name in tasks_of(config)] or [output]:
        write_text(place / "README.md", card(config, folder.read_manifest(), table))
