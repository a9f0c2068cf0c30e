"""The request and the answer of OpenAI's embeddings.

Specification: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Literal

from tanzim.core.records import Json
from tanzim.serve.routes.completions_schema import Prompts, each
from tanzim.serve.schema import Strict


class EmbeddingRequest(Strict):
    """The body of ``POST /v1/embeddings``."""

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None
    """Vectors have as many as the model; a part of them would not stand for the text."""
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """The texts, each as text or as tokens."""
        return each(self.input)


def embeddings_object(asked: EmbeddingRequest, vectors: Sequence[Sequence[float]], tokens: int) -> Json:
    """Return vectors as OpenAI's API shows them; in base64 they are little-endian float32."""

    def shown(vector: Sequence[float]) -> list[float] | str:
        if asked.encoding_format != "base64":
            return list(vector)
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": shown(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
