"""What happens to a conversation that is longer than the model's limit, and how often it did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tanzim.core.errors import RenderError
from tanzim.core.records import Rendered

Policy = Literal["error", "drop", "truncate"]


def fit(rendered: Rendered, max_length: int, policy: Policy) -> Rendered | None:
    """Apply the overlong policy to one conversation.

    ``truncate`` keeps the start, so the answer's end may be lost (`Overlong` counts these); where
    nothing trained is left, the conversation is dropped.

    Args:
        rendered: the conversation.
        max_length: limit in tokens.
        policy: what to do above it.

    Returns:
        The conversation within the limit, or None if it is dropped.

    Raises:
        RenderError: it is too long and the policy is error.

    """
    length = len(rendered.ids)
    if length <= max_length:
        return rendered
    if policy == "error":
        raise RenderError(
            f"this conversation has {length} tokens and the limit is {max_length}",
            where=str(rendered.provenance),
            fix=f"model.max_length={length}, or model.overlong=drop (or truncate)",
        )
    weights = rendered.weights[:max_length]
    if policy == "drop" or not any(weights):
        return None
    segments = tuple(
        replace(segment, end=min(segment.end, max_length))
        for segment in rendered.segments
        if segment.start < max_length
    )
    return replace(rendered, ids=rendered.ids[:max_length], weights=weights, segments=segments)


@dataclass(frozen=True, slots=True)
class Overlong:
    """Counts of what `fit` did, for the manifest.

    Args:
        examples: conversations seen.
        overlong: those above the limit.
        dropped: left out.
        truncated: cut.
        ends_lost: those cut within a trained turn, which so lost its end-of-turn token.
        longest: tokens of the longest, before cutting.

    """

    examples: int = 0
    overlong: int = 0
    dropped: int = 0
    truncated: int = 0
    ends_lost: int = 0
    longest: int = 0

    def counting(self, before: Rendered, after: Rendered | None) -> Overlong:
        """Return the counts with one more conversation: what `fit` was given, and what it returned."""
        cut = after is not None and len(after.ids) < len(before.ids)
        at = len(after.ids) if after is not None else 0
        split = any(s.trained and s.start < at < s.end for s in before.segments)
        return Overlong(
            examples=self.examples + 1,
            overlong=self.overlong + (cut or after is None),
            dropped=self.dropped + (after is None),
            truncated=self.truncated + cut,
            ends_lost=self.ends_lost + (cut and split),
            longest=max(self.longest, len(before.ids)),
        )
