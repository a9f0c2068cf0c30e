"""Tanzim: from raw data to a proven, served, fine-tuned language model on your own hardware."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tanzim.core.errors import TanzimError
    from tanzim.pipeline.adapters import (
        add_adapter,
        delete_adapter,
        diff_adapters,
        fetch_adapter,
        merge_models,
        promote_adapter,
        roll_back_adapter,
        search_adapters,
    )
    from tanzim.pipeline.chat import chat
    from tanzim.pipeline.combine import combine_adapters
    from tanzim.pipeline.config import Config
    from tanzim.pipeline.data_queue import queue_data
    from tanzim.pipeline.data_record import diff_data, publish_data, trace_data
    from tanzim.pipeline.data_review import agree_data, export_review, import_review, open_review
    from tanzim.pipeline.data_step import data_step
    from tanzim.pipeline.doctor import doctor
    from tanzim.pipeline.evaluate import evaluate_run
    from tanzim.pipeline.export import export_run
    from tanzim.pipeline.finetune import finetune
    from tanzim.pipeline.init import init
    from tanzim.pipeline.launch import launch_job
    from tanzim.pipeline.plan import plan
    from tanzim.pipeline.prepare import inspect_data, prepare_data
    from tanzim.pipeline.preview import preview
    from tanzim.pipeline.range_test import range_test
    from tanzim.pipeline.run import run
    from tanzim.pipeline.search import search
    from tanzim.pipeline.serve import serve_models
    from tanzim.pipeline.workspace import load_config

# peft imports bitsandbytes where it is installed, which asks for kernels on the hub; here it does without.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"

_HOME = {
    "Config": "pipeline.config",
    "TanzimError": "core.errors",
    "add_adapter": "pipeline.adapters",
    "agree_data": "pipeline.data_review",
    "chat": "pipeline.chat",
    "combine_adapters": "pipeline.combine",
    "data_step": "pipeline.data_step",
    "delete_adapter": "pipeline.adapters",
    "diff_adapters": "pipeline.adapters",
    "diff_data": "pipeline.data_record",
    "doctor": "pipeline.doctor",
    "evaluate_run": "pipeline.evaluate",
    "export_review": "pipeline.data_review",
    "export_run": "pipeline.export",
    "fetch_adapter": "pipeline.adapters",
    "finetune": "pipeline.finetune",
    "import_review": "pipeline.data_review",
    "init": "pipeline.init",
    "inspect_data": "pipeline.prepare",
    "launch_job": "pipeline.launch",
    "load_config": "pipeline.workspace",
    "merge_models": "pipeline.adapters",
    "open_review": "pipeline.data_review",
    "plan": "pipeline.plan",
    "prepare_data": "pipeline.prepare",
    "preview": "pipeline.preview",
    "promote_adapter": "pipeline.adapters",
    "publish_data": "pipeline.data_record",
    "queue_data": "pipeline.data_queue",
    "range_test": "pipeline.range_test",
    "roll_back_adapter": "pipeline.adapters",
    "run": "pipeline.run",
    "search": "pipeline.search",
    "search_adapters": "pipeline.adapters",
    "serve_models": "pipeline.serve",
    "trace_data": "pipeline.data_record",
}

__all__ = [
    "Config",
    "TanzimError",
    "add_adapter",
    "agree_data",
    "chat",
    "combine_adapters",
    "data_step",
    "delete_adapter",
    "diff_adapters",
    "diff_data",
    "doctor",
    "evaluate_run",
    "export_review",
    "export_run",
    "fetch_adapter",
    "finetune",
    "import_review",
    "init",
    "inspect_data",
    "launch_job",
    "load_config",
    "merge_models",
    "open_review",
    "plan",
    "prepare_data",
    "preview",
    "promote_adapter",
    "publish_data",
    "queue_data",
    "range_test",
    "roll_back_adapter",
    "run",
    "search",
    "search_adapters",
    "serve_models",
    "trace_data",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whichever public name
    """Import a public name when it is first used, so that ``import tanzim`` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'tanzim' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"tanzim.{_HOME[name]}"), name)
    globals()[name] = value
    return value
