"""``serve.engine``: what computes the answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from tanzim.core.config import Section

# What the server says itself, and what would have vLLM run a model's own code.
_OURS = (
    "model",
    "config",
    "host",
    "port",
    "uds",
    "api-key",
    "served-model-name",
    "trust-remote-code",
    "hf-overrides",
)


class TanzimEngineConfig(Section):
    """The engine that comes with Tanzim (docs/serving.md)."""

    type: Literal["tanzim"] = "tanzim"
    speculation: bool = True
    """Guess tokens from what the text holds already, where checking them costs less than they are worth."""
    quantization: Literal["int8", "int4"] | None = None
    """Keep the base's weights in 8 or 4 bits; adapters and activations stay precise. Unset: as they are."""


class VllmEngineConfig(Section):
    """vLLM, which the server starts, watches over and ends."""

    type: Literal["vllm"]
    command: list[str] = Field(["vllm", "serve"], min_length=1)
    """What starts it, in an environment of its own; the model's folder and the arguments follow."""
    arguments: list[str] = Field(default_factory=list)
    """More of vLLM's own arguments."""
    start_seconds: float = Field(900.0, gt=0)
    """How long it may take to load the model (s)."""
    restarts: int = Field(5, ge=0)
    """How often it is started again within an hour after it has died."""
    max_adapters: int = Field(8, ge=1)
    """Adapters in one batch (vLLM's --max-loras)."""
    max_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 64
    """Largest rank of an adapter (vLLM's --max-lora-rank)."""

    @field_validator("arguments")
    @classmethod
    def _are_free(cls, value: list[str]) -> list[str]:
        for argument in value:
            name = argument.split("=", 1)[0].lstrip("-").replace("_", "-")
            taken = argument.startswith("--") and any(ours.startswith(name) for ours in _OURS)
            if taken:
                raise ValueError(f"{argument} is not yours to set here")
        return value


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``tanzim`` where no type is given, so that ``serve.engine.quantization=int8`` works on its own."""
    return value.get("type", "tanzim") if isinstance(value, dict) else getattr(value, "type", None)


EngineConfig = Annotated[
    Annotated[TanzimEngineConfig, Tag("tanzim")] | Annotated[VllmEngineConfig, Tag("vllm")],
    Discriminator(_type),
]
