"""Keep transformers and the hub client silent: no telemetry ever, no chatter while we load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import huggingface_hub.constants
from transformers.utils import logging

# The environment alone does not reach a hub client that was imported before us.
huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' warnings and progress bars; what matters is raised by the caller."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
