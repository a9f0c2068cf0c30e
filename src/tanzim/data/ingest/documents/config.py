"""How documents are cut into examples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tanzim.core.config import Section


class ChunksConfig(Section):
    """What one example of a document (PDF, Word, HTML, Markdown) is."""

    by: Literal["document", "section", "paragraph"] = "section"
    """The whole document; its pages (PDF) or headed sections; or paragraphs, packed up to max_characters."""
    max_characters: int | None = Field(None, ge=50)
    """Longest example; a longer section is cut after a paragraph, else a sentence, else a word."""

    @model_validator(mode="after")
    def _fits(self) -> ChunksConfig:
        if self.by == "paragraph" and self.max_characters is None:
            raise ValueError("by: paragraph packs paragraphs up to max_characters, which is not set")
        if self.by == "document" and self.max_characters is not None:
            raise ValueError("by: document keeps documents whole; max_characters would cut them")
        return self
