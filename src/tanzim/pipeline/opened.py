"""Open a base model with its adapters for generation: one way for chat, evaluation, export and serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tanzim.core.errors import ModelError, RunError
from tanzim.core.files import read_json
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.infer.engine import Engine
from tanzim.infer.seq2seq import Seq2SeqEngine
from tanzim.models.config import ModelConfig
from tanzim.models.load import base_kind, load_model, load_tokenizer, pick_device, pick_dtype
from tanzim.models.quantised import Quantised
from tanzim.models.render import Renderer
from tanzim.models.resolve import Base, resolve
from tanzim.models.source_target import SourceTarget
from tanzim.models.speaker import Speaker
from tanzim.pipeline.form import recorded_form, say_form
from tanzim.pipeline.routed import adapters_of
from tanzim.pipeline.tasks import refuse_without_text
from tanzim.pipeline.workspace import find_run


@dataclass(frozen=True, slots=True)
class Opened:
    """A model ready to answer.

    Args:
        base: the base weights.
        renderer: conversation → tokens.
        engine: tokens → tokens; knows the adapters by name.
        name: what to ask for by default: the last adapter, else the base.
        adapter: the adapter behind ``name``; None for the base itself.
        model: the config it was opened by.
    """

    base: Base
    renderer: Speaker
    engine: Engine
    name: str
    adapter: str | None
    model: ModelConfig


@dataclass(frozen=True, slots=True)
class Wanted:
    """What names on the command line stand for: one base, and adapters on it.

    Args:
        model: names the base.
        adapters: name and folder of each.
        form: of the base's weights on which the adapters were trained; None for the model's precision.
    """

    model: ModelConfig
    adapters: tuple[tuple[str, Path], ...] = ()
    form: Quantised | None = None


def open_models(
    names: Sequence[str] = (), *, quantised: Quantised | None = None, reporter: Reporter | None = None
) -> Opened:
    """Load the base that ``names`` share, and every adapter among them.

    Args:
        names: run folders, adapter folders, or one model name (alias, hub id, folder, GGUF file);
            none takes the newest run here, else the embedded default.
        quantised: in which form to keep the base's weights; None for that which its adapters ask for.
        reporter: takes what was chosen.

    Raises:
        RunError: a run has no trained model yet.
        ModelError: the names need different bases, or one in another form.
    """
    reporter = reporter or Reporter()
    wanted = find_models(names, reporter=reporter)
    if quantised is not None and wanted.form is not None:
        raise ModelError(
            f"the adapters were trained on the base in {wanted.form}, and it is to be kept in {quantised}",
            where=", ".join(names),
            fix="leave serve.engine.quantization unset for them",
        )
    opened = open_base(wanted.model, form=quantised or wanted.form, reporter=reporter)
    for name, folder in wanted.adapters:
        opened.engine.add_adapter(name, folder)
    last = wanted.adapters[-1][0] if wanted.adapters else None
    return Opened(opened.base, opened.renderer, opened.engine, last or opened.name, last, opened.model)


def find_models(names: Sequence[str], *, reporter: Reporter) -> Wanted:
    """Return what names stand for, with nothing loaded.

    Args:
        names: as for `open_models`.
        reporter: takes what was chosen.

    Raises:
        RunError: a run has no trained model yet.
        ModelError: the names need different bases.
    """
    if not names:
        names = [_newest(reporter)]
    wanted = [_wanted(name) for name in names]
    models = {(w.model.name, w.model.revision) for w in wanted}
    if len(models) > 1:
        raise ModelError(
            "these need different base models: " + ", ".join(sorted(name for name, _ in models)),
            where=", ".join(names),
            fix="open them one at a time",
        )
    adapters = [adapter for w in wanted for adapter in w.adapters]
    forms = {recorded_form(folder) for _, folder in adapters}
    if len(forms) > 1:
        raise ModelError(
            "these need one base in different forms: "
            + " and ".join(sorted(str(form or "its own precision") for form in forms)),
            where=", ".join(names),
            fix="open them one at a time",
        )
    return Wanted(wanted[0].model, tuple(adapters), next(iter(forms), None))


def open_base(
    config: ModelConfig, *, form: Quantised | None = None, reporter: Reporter | None = None
) -> Opened:
    """Load the base model of ``config`` alone, in the form that its adapters were trained on, or a given one.

    Raises:
        ModelError: it cannot be loaded, or not in this form.
    """
    reporter = reporter or Reporter()
    base = replace(resolve(config), quantised=form)
    say_form(form, reporter)
    device = pick_device(config)
    dtype = pick_dtype(config, device)
    tokenizer = load_tokenizer(base)
    kind = base_kind(base)
    if form is not None and form.integer is not None and kind == "seq2seq":
        raise ModelError(
            f"weights in {form} are for decoders; this is an encoder-decoder",
            where=base.name,
            fix="leave serve.engine.quantization unset",
        )
    renderer: Speaker = SourceTarget(tokenizer) if kind == "seq2seq" else renderer_of(tokenizer, config)
    model = load_model(base, dtype=dtype, device=device, kind=kind)
    make = Seq2SeqEngine if kind == "seq2seq" else Engine
    engine = make(model, tokenizer, stop_ids=renderer.stop_ids, base_hash=base.hash)
    if config.device == "auto":
        reporter.choose(
            "model.device", device, "a CUDA device is there" if device.type == "cuda" else "no CUDA device"
        )
    return Opened(base, renderer, engine, base.name, None, config)


def renderer_of(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> Renderer:
    """Return what makes tokens of conversations for a causal model."""
    return Renderer(tokenizer, train_on=config.train_on, thinking=config.thinking)


def _newest(reporter: Reporter) -> str:
    runs = [p.parent for p in Path("runs").glob("*/manifest.json") if RunFolder(p.parent).adapter.is_dir()]
    if not runs:
        return ModelConfig().name
    newest = max(runs, key=lambda path: (path / "manifest.json").stat().st_mtime)
    reporter.say(f"taking the newest run: {newest}")
    return str(newest)


def _wanted(name: str) -> Wanted:
    path = Path(name)
    if (path / "manifest.json").is_file():
        folder, config = find_run(path)
        refuse_without_text(config)
        if folder.adapter.is_dir():
            return Wanted(config.model, tuple(adapters_of(config, folder)))
        if folder.model.is_dir():
            return Wanted(config.model.model_copy(update={"name": str(folder.model), "revision": None}))
        raise RunError("this run has no trained model yet", where=str(path), fix="tanzim train finishes it")
    if (path / "adapter_config.json").is_file():
        config_ = read_json(path / "adapter_config.json")
        if str(config_.get("task_type")) in ("SEQ_CLS", "TOKEN_CLS"):
            raise ModelError(
                "this adapter labels texts and writes none",
                where=str(path),
                fix="peft opens it, as its README.md shows",
            )
        base = config_.get("base_model_name_or_path")
        if not base:
            raise ModelError("this adapter does not name its base model", where=str(path))
        return Wanted(ModelConfig(name=base), ((path.resolve().name.replace(".", "-"), path),))
    return Wanted(ModelConfig(name=name))
