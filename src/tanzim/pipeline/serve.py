"""``tanzim serve``: base and adapters behind the OpenAI API, and fine-tuning jobs."""

from __future__ import annotations

from collections.abc import Sequence

from tanzim.adapters.repository import Repository
from tanzim.core.progress import Reporter
from tanzim.pipeline.answering import open_backend
from tanzim.pipeline.workshop import Workshop
from tanzim.pipeline.workspace import load_config
from tanzim.serve.app import create_app
from tanzim.serve.server import run_server
from tanzim.serve.shelf import Shelf
from tanzim.serve.store.store import open_store
from tanzim.serve.tool_formats import guess_format


def serve_models(
    models: Sequence[str] = (), *, overrides: Sequence[str] = (), reporter: Reporter | None = None
) -> None:
    """Serve models until interrupted: the base under its name, each run's adapter under the run's.

    Args:
        models: run folders or adapter folders on one base, or one model name; none takes the newest run.
        overrides: config overrides such as ``serve.port=8001``.
        reporter: takes the address, and what was chosen.

    Raises:
        ConfigError: the address cannot be used, or the database, or vLLM cannot be started.
        ModelError: the models need different bases, or one is larger than the memory for adapters.
        RunError: the adapter repository cannot be used.
        MissingExtra: what speaks its protocol is not installed.

    """
    reporter = reporter or Reporter()
    project = load_config(None, overrides)
    config = project.serve
    opened = open_backend(models, config, reporter=reporter)
    backend = opened.backend
    names: dict[str, str | None] = {opened.base.name: None}
    names |= {name: name for name in backend.adapters}
    reporter.say(f"models: {', '.join(names)}")
    if config.tool_format == "auto":
        found, why = guess_format(backend.tokenizer, opened.renderer.prompt)
        reporter.choose("serve.tool_format", found, why)
        config = config.model_copy(update={"tool_format": found})
    project = project.model_copy(update={"model": opened.model})
    shelf = None if config.repository is None else Shelf(Repository(config.repository), opened.base.hash)
    store, workshop = open_store(config), Workshop(project, opened.base.quantised)
    app = create_app(backend, opened.renderer, config, names, store, workshop, shelf)
    try:
        run_server(app, config, announce=reporter.say)
    finally:
        backend.stop()  # also where it never began
