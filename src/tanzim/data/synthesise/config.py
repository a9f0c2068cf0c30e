"""The step that has a language model write training examples, and check them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tanzim.core.config import Section


class SynthesiseConfig(Section):
    """Write examples from documents and seeds: generate, refine, verify, leave out what is there."""

    type: Literal["synthesise"] = "synthesise"
    model: str = Field(min_length=1)
    """The language model that writes, or URL of an OpenAI-compatible endpoint (…/v1#model)."""
    verifier: str | None = None
    """The language model that checks; unset, the one that writes (another one is less lenient)."""
    count: int = Field(100, ge=1)
    """Examples that are tried; what is rejected is not made up for."""
    make: Literal["alike", "questions"] = "alike"
    """alike: an example like its seed; questions: of a document (text) a question and its answer."""
    style: Literal["full", "simple"] = "full"
    """full: all at once, checked by two yes-or-no questions. simple, for models under about 1B parameters:
    one thing a call, after worked examples; the verifier's own answer must agree with what was written."""
    task: str = ""
    """What the examples are for, in a sentence or two: said to the models (style full)."""
    max_characters: int = Field(4000, ge=1)
    """So much of a document or seed (characters) is shown to the models."""
    min_stated: float = Field(0.6, ge=0, le=1)
    """Of an answer on a document, the share of its words beyond the question's that the document must hold;
    its numbers must stand there too. 0 checks neither."""
    embedding: str | None = None
    """An embedding model to check with whether a draft is about its document, or near its seed."""
    min_relevance: float = Field(0.3, ge=-1, le=1)
    """Cosine to the document or seed below which a draft is about something else (with embedding)."""
    max_similarity: float = Field(0.8, gt=0, le=1)
    """A new text that shares so much of its 5-grams of letters (Jaccard) with another is a repetition."""
