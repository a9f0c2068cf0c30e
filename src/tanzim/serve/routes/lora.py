"""``/v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``, as vLLM has them.

Specification: https://docs.vllm.ai/en/latest/features/lora.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import Field

from tanzim.serve.access.gate import Manages
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import Context
from tanzim.serve.schema import Strict

Name = Annotated[str, Field(min_length=1, max_length=200)]


class LoadRequest(Strict):
    """The body of ``POST /v1/load_lora_adapter``."""

    lora_name: Name
    lora_path: Annotated[str, Field(min_length=1)]
    load_inplace: bool = False
    """Take the place of an adapter of this name."""


class UnloadRequest(Strict):
    """The body of ``POST /v1/unload_lora_adapter``."""

    lora_name: Name


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""
    catalogue, folders = context.service.catalogue, context.config.adapter_folders

    @app.post("/v1/load_lora_adapter")
    async def load(asked: LoadRequest, caller: Manages) -> PlainTextResponse:
        folder = await asyncio.to_thread(allowed, asked.lora_path, folders)
        await catalogue.load(caller.project, asked.lora_name, folder, in_place=asked.load_inplace)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(asked: UnloadRequest, caller: Manages) -> PlainTextResponse:
        await catalogue.unload(caller.project, asked.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")


def allowed(path: str, folders: Sequence[str]) -> Path:
    """Return the adapter's folder that a client names, without links.

    Args:
        path: as the client wrote it.
        folders: below which adapters may lie.

    Raises:
        ApiError: it, or one of its files, lies elsewhere (403), or it is no folder (404). What lies
            elsewhere is not told from what does not exist.

    """
    if not folders:
        message = "This server opens no paths of its clients; serve.adapter_folders would name where it may."
        raise ApiError(403, message, param="lora_path")
    roots = [Path(folder).resolve() for folder in folders]
    refused = ApiError(403, "The path lies in none of the folders for adapters.", param="lora_path")
    try:
        found = Path(path).resolve()
        if not _below(found, roots):
            raise refused
        if not found.is_dir():
            raise ApiError(404, "There is no such adapter.", code="not_found", param="lora_path")
        if not all(_below(file.resolve(), roots) for file in found.rglob("*")):
            raise refused
    except (OSError, ValueError, RuntimeError):  # no path at all, one that is too long, links in a circle
        raise refused from None
    return found


def _below(path: Path, roots: Sequence[Path]) -> bool:
    return any(root in path.parents for root in roots)
