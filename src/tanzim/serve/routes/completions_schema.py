"""The request of OpenAI's text completions, checked.

Specification: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, StrictStr, model_validator

from tanzim.serve.schema import Stopped, StreamOptions

LONGEST = 16  # tokens of an answer where the request does not say, as the API has it
MOST = 1024  # answers of one request: prompts × n

Ids = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]
Prompts = StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | Ids | list[Ids]


def each(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """Return the texts that a client gave in one of four forms, each as text or as tokens."""
    if isinstance(given, str):
        return [given]
    tokens = [one for one in given if isinstance(one, int)]
    return [tokens] if tokens else [one for one in given if not isinstance(one, int)]


class CompletionRequest(Stopped):
    """The body of ``POST /v1/completions``."""

    model: str
    prompt: Prompts
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    # Accepted where they ask for nothing.
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    # A label that never changes an answer.
    user: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> CompletionRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        if len(self.prompts) * (self.n or 1) > MOST:
            raise ValueError(
                f"prompt has {len(self.prompts)} prompts; with n they come to over {MOST} answers"
            )
        if not self.prompts:
            raise ValueError("prompt is an empty list")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or as tokens."""
        return each(self.prompt)
