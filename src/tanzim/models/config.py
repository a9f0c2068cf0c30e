"""The ``model`` section of ``tanzim.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section


class ModelConfig(Section):
    """The base model, and how conversations become its tokens."""

    name: str = "smollm2-135m-instruct"
    """An alias, a hub id (owner/name), a local folder, or a GGUF file."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes CUDA if it is there."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision; auto takes bfloat16 on CUDA devices that compute in it and float32 elsewhere."""
    train_on: Literal["assistant", "last"] = "assistant"
    """Which turns are trained: every assistant turn, or the last one; a turn's own weight wins."""
    max_length: int = Field(2048, ge=8)
    """Longest conversation, in tokens."""
    overlong: Literal["error", "drop", "truncate", "split"] = "error"
    """What happens to a longer one; split divides raw text into blocks and loses nothing. All are counted."""
    thinking: bool = False
    """For templates that know a thinking mode: whether prompts ask for it."""
