"""The server on a free port of this machine, in a thread of the test, and a renderer for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from transformers import PreTrainedTokenizerFast

from tanzim.adapters.repository import Repository
from tanzim.core.records import Json, Message
from tanzim.infer.engine import Engine
from tanzim.pipeline.config import Config
from tanzim.pipeline.workshop import Workshop
from tanzim.serve.app import create_app
from tanzim.serve.config import ServeConfig
from tanzim.serve.server import uvicorn_config
from tanzim.serve.service import Prompts
from tanzim.serve.shelf import Shelf
from tanzim.serve.store.store import open_store
from tanzim.serve.worker import Worker


class Lines:
    """A renderer of one line per turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        calls = [f"{m.role}:{m.content}{[c.name for c in m.tool_calls] or ''}\n" for m in messages]
        names = [tool["function"]["name"] for tool in tools]
        return self._tokenizer.encode(f"{names or ''}{''.join(calls)}>", add_special_tokens=False)


@contextmanager
def serving(
    engine: Engine,
    renderer: Prompts,
    names: Mapping[str, str | None],
    folder: Path,
    project: Config | None = None,
    **settings: Any,
) -> Iterator[str]:
    """Yield the server's address, without ``/v1``."""
    config = ServeConfig(folder=str(folder), **settings)
    shelf = None if config.repository is None else Shelf(Repository(config.repository), engine.base_hash)
    backend = Worker(engine, config.max_batch, config.adapter_memory_mb)
    store, workshop = open_store(config), Workshop(project or Config())
    app = create_app(backend, renderer, config, names, store, workshop, shelf)
    with running(app, config) as address:
        yield address


@contextmanager
def running(app: FastAPI, config: ServeConfig | None = None) -> Iterator[str]:
    """Yield the address of an application, served as `run_server` serves it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app, config or ServeConfig()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
