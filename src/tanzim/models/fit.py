"""What happens to a conversation that is longer than the model's limit, and how often it did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tanzim.core.errors import RenderError
from tanzim.core.records import Rendered

Policy = Literal["error", "drop", "truncate"]
TEXT = "text"  # role of the segments of raw text


def fit(rendered: Rendered, max_length: int, policy: Policy) -> Rendered | None:
    """Apply the overlong policy to one conversation.

    ``truncate`` keeps the start, so the answer's end may be lost (`Overlong` counts these); where
    nothing trained is left, the conversation is dropped. Special tokens that a tokenizer puts at the end
    of a text stay there, and the labels of words that were cut off go.

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
    if rendered.targets:
        return _fit_labelled(rendered, max_length) if policy == "truncate" else None
    weights = rendered.weights[:max_length]
    if policy == "drop" or not any(weights):
        return None
    segments = tuple(
        replace(segment, end=min(segment.end, max_length))
        for segment in rendered.segments
        if segment.start < max_length
    )
    return replace(rendered, ids=rendered.ids[:max_length], weights=weights, segments=segments)


def is_text(rendered: Rendered) -> bool:
    """Tell raw text, which can be divided, from a conversation or labelled text, which cannot."""
    return not rendered.targets and all(segment.role == TEXT for segment in rendered.segments)


def blocks(rendered: Rendered, max_length: int) -> list[Rendered]:
    """Divide raw text into blocks of at most ``max_length`` tokens.

    A block begins with the last token of the one before, which is not trained again: so every token of
    the text but its first is trained once, the end-of-text token at the end of the last block included.

    Args:
        rendered: raw text.
        max_length: limit in tokens, at least 2.

    """
    made = []
    for start in range(0, max(1, len(rendered.ids) - 1), max_length - 1):
        end = min(start + max_length, len(rendered.ids))
        weights = (0.0, *rendered.weights[start + 1 : end]) if start else rendered.weights[:end]
        segments = tuple(
            replace(segment, start=max(0, segment.start - start), end=min(segment.end, end) - start)
            for segment in rendered.segments
            if segment.start < end and segment.end > start
        )
        made.append(replace(rendered, ids=rendered.ids[start:end], weights=weights, segments=segments))
    return made


def _fit_labelled(rendered: Rendered, max_length: int) -> Rendered | None:
    """Cut a text with labels before the special tokens at its end."""
    last = rendered.segments[-1]
    tail = last.end - last.start if last.role == "special" else 0
    length, cut = len(rendered.ids), max_length - tail
    weights = (*rendered.weights[: max(0, cut)], *rendered.weights[length - tail :])
    before, labelled = (sum(1 for weight in some if weight) for some in (rendered.weights, weights))
    if cut <= 0 or not labelled:
        return None
    segments = [replace(s, end=min(s.end, cut)) for s in rendered.segments if s.start < cut]
    if tail:
        segments.append(replace(last, start=cut, end=max_length))
    return replace(
        rendered,
        ids=(*rendered.ids[:cut], *rendered.ids[length - tail :]),
        weights=weights,
        segments=tuple(segments),
        targets=tuple(t[:labelled] if len(t) == before else t for t in rendered.targets),
    )


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
        divided: raw texts that were divided into blocks.

    """

    examples: int = 0
    overlong: int = 0
    dropped: int = 0
    truncated: int = 0
    ends_lost: int = 0
    longest: int = 0
    divided: int = 0

    def dividing(self, before: Rendered) -> Overlong:
        """Return the counts with one more text that was divided into blocks."""
        return replace(
            self,
            examples=self.examples + 1,
            overlong=self.overlong + 1,
            divided=self.divided + 1,
            longest=max(self.longest, len(before.ids)),
        )

    def counting(self, before: Rendered, after: Rendered | None) -> Overlong:
        """Return the counts with one more conversation: what `fit` was given, and what it returned."""
        cut = after is not None and len(after.ids) < len(before.ids)
        at = len(after.ids) if after is not None else 0
        split = any(s.trained and s.start < at < s.end for s in before.segments)
        return replace(
            self,
            examples=self.examples + 1,
            overlong=self.overlong + (cut or after is None),
            dropped=self.dropped + (after is None),
            truncated=self.truncated + cut,
            ends_lost=self.ends_lost + (cut and split),
            longest=max(self.longest, len(before.ids)),
        )
