"""What answers behind ``tanzim serve``: our engine in this process, or vLLM in one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tanzim.core.errors import ConfigError, ModelError
from tanzim.core.progress import Reporter
from tanzim.models.config import ModelConfig
from tanzim.models.load import base_kind, load_tokenizer
from tanzim.models.quantised import Quantised
from tanzim.models.resolve import Base, resolve
from tanzim.models.speaker import Speaker
from tanzim.pipeline.opened import find_models, open_models, renderer_of
from tanzim.serve.backend import Backend
from tanzim.serve.config import ServeConfig
from tanzim.serve.engine_config import VllmEngineConfig
from tanzim.serve.vllm.open import open_vllm
from tanzim.serve.worker import Worker


@dataclass(frozen=True, slots=True)
class Answering:
    """A base model and its adapters, ready to be asked.

    Args:
        base: the base weights.
        renderer: conversation → tokens.
        backend: tokens → tokens.
        model: the config it was opened by.

    """

    base: Base
    renderer: Speaker
    backend: Backend
    model: ModelConfig


def open_backend(models: Sequence[str], config: ServeConfig, *, reporter: Reporter) -> Answering:
    """Open the base that ``models`` share, and every adapter among them, with what is to compute.

    Args:
        models: as for `open_models`.
        config: the ``serve`` section.
        reporter: takes what was chosen, and how vLLM is coming up.

    Raises:
        ConfigError: vLLM cannot be started, or a key has no meaning for it.
        ModelError: the models need different bases, or cannot be served.
        RunError: a run has no trained model yet.

    """
    if isinstance(config.engine, VllmEngineConfig):
        return _open_vllm(models, config, config.engine, reporter)
    kind = config.engine.quantization
    quantised = None if kind is None else Quantised(kind)
    opened = open_models(models, quantised=quantised, reporter=reporter)
    memory, speculate = config.adapter_memory_mb, config.engine.speculation
    backend = Worker(opened.engine, config.max_batch, memory, speculate=speculate)
    return Answering(opened.base, opened.renderer, backend, opened.model)


def _open_vllm(
    models: Sequence[str], config: ServeConfig, engine: VllmEngineConfig, reporter: Reporter
) -> Answering:
    if config.adapter_memory_mb is not None:
        raise ConfigError(
            "vLLM bounds adapters by their number, not by their memory",
            where="serve.adapter_memory_mb",
            fix="set serve.engine.max_adapters instead",
        )
    wanted = find_models(models, reporter=reporter)
    if wanted.form is not None:
        raise ModelError(
            f"the adapters were trained on the base's weights as {wanted.form}, which vLLM is not asked for",
            fix="serve.engine.type: tanzim serves them",
        )
    base = resolve(wanted.model)
    if base_kind(base) != "causal":
        raise ModelError(
            "vLLM is asked for decoder models alone", where=base.name, fix="serve.engine.type: tanzim"
        )
    if wanted.model.device != "auto":
        reporter.say(f"model.device {wanted.model.device} does not count: vLLM takes what it was built for")
    tokenizer = load_tokenizer(base)
    renderer = renderer_of(tokenizer, wanted.model)
    backend = open_vllm(
        base.path,
        tokenizer,
        config,
        engine,
        stop_ids=renderer.stop_ids,
        base_hash=base.hash,
        dtype=wanted.model.dtype,
        say=reporter.say,
    )
    reporter.say(f"vLLM is starting; its log: {backend.log}")
    try:
        with reporter.task("vLLM") as progress:
            backend.launch(dict(wanted.adapters), progress=progress)
    except BaseException:
        backend.stop()
        raise
    return Answering(base, renderer, backend, wanted.model)
