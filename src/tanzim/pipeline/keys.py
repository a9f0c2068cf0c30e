"""``tanzim keys``: who may use the server. It works on the server's database, running or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tanzim.pipeline.workspace import load_config
from tanzim.serve.access.keys import Keys
from tanzim.serve.store.store import open_store


@contextmanager
def open_keys() -> Iterator[Keys]:
    """Open the keys of the server that ``tanzim.yaml`` here describes.

    Raises:
        ConfigError: its database cannot be used.

    """
    store = open_store(load_config().serve)
    try:
        yield store.keys
    finally:
        store.close()
