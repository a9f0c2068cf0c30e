"""What a lower room may need of a higher one, as callables: to embed, to answer, to judge texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tanzim.core.errors import ConfigError
from tanzim.core.records import Message

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N texts → [N, D], rows of length 1.
Embed = Callable[[Sequence[str]], "npt.NDArray[np.float32]"]
# N texts → for each a probability by category, such as {"toxic": 0.98}.
Judge = Callable[[Sequence[str]], list[Mapping[str, float]]]


class Complete(Protocol):
    """A language model that answers conversations, always the same to the same."""

    def __call__(
        self, conversations: Sequence[Sequence[Message]], *, longest: int | None = None
    ) -> list[str]:
        """Return the N answers to N conversations.

        Args:
            conversations: each ends with what is to be answered.
            longest: tokens of an answer; one that is cut off there comes back empty. None: the model's own.

        """


def _embedder(model: str) -> Embed:
    raise _missing("an embedding model", model)


def _completer(model: str) -> Complete:
    raise _missing("a language model", model)


def _judge(model: str) -> Judge:
    raise _missing("a scorer of texts", model)


def _missing(what: str, model: str) -> ConfigError:
    return ConfigError(
        f"this needs {what} ('{model}'), and none was handed over",
        fix="run it through `tanzim data`, or pass powers=Powers(…) with a callable of yours",
    )


@dataclass(frozen=True, slots=True)
class Powers:
    """Opens callables by the name a config gives.

    Args:
        embed: name of an embedding model → `Embed`.
        complete: name of a language model, or URL of an OpenAI-compatible endpoint → `Complete`.
        judge: name of a scorer → `Judge`.

    """

    embed: Callable[[str], Embed] = _embedder
    complete: Callable[[str], Complete] = _completer
    judge: Callable[[str], Judge] = _judge
