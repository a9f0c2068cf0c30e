"""Which adapters lie in memory: loaded when they are asked for, the longest unused let go for others."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from tanzim.adapters.folder import WEIGHTS
from tanzim.core.errors import ModelError, TanzimError
from tanzim.infer.sequence import Sequence

COPIES = 2  # of an adapter's numbers in float32: as they came, and laid out for mixed batches

_LONGEST_HEAD = 100 << 20  # bytes, as safetensors has it


class GoneError(ModelError):
    """An adapter's files are no longer where they were."""


class TooLargeError(ModelError):
    """An adapter takes more than all of them may together."""


class WordlessError(ModelError):
    """An adapter labels texts and writes none."""


class NoRoomError(ModelError):
    """All loaded adapters are in use just now, and there is no room for another."""


class Residents:
    """Loads adapters within a bound of memory.

    `know` and `knows` may be called from any thread, all else from the one that computes.

    Args:
        load: puts the adapter of a folder under a name into the model.
        drop: takes it out again.
        fit: leaves room for what a loaded adapter puts before a prompt, or raises a `TanzimError`.
        built_in: adapters that the model came with, which always stay.

    """

    def __init__(
        self,
        load: Callable[[str, Path], None],
        drop: Callable[[str], None],
        fit: Callable[[Sequence], None],
        built_in: Iterable[str] = (),
    ) -> None:
        self._load, self._drop, self._fit = load, drop, fit
        self._built_in = frozenset(built_in)
        self._folders: dict[str, Path] = {}
        self._sizes: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._in_use: Counter[str] = Counter()
        self._memory: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters that are loaded, or can be."""
        return tuple(self._folders)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Adapters that lie in memory, the longest unused first."""
        return tuple(self._sizes)

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return sum(self._sizes.values())

    def bound(self, memory: int | None) -> None:
        """Keep to a bound from now on.

        Args:
            memory: bytes; None for no bound.

        Raises:
            TooLargeError: a loaded adapter is larger by itself.

        """
        self._memory = memory
        for name in self._sizes:
            self._size(name, self._folders[name])
        while memory is not None and self.size > memory:
            name = next(name for name in self._sizes if not self._in_use[name])
            self._evict(name)

    def knows(self, name: str) -> bool:
        """Whether an adapter is loaded, or can be."""
        return name in self._folders or name in self._built_in

    def know(self, name: str, folder: Path) -> None:
        """Let an adapter be loaded when it is first asked for.

        Raises:
            GoneError: there is no such folder.
            TooLargeError: it is larger than the bound.

        """
        self._size(name, folder)
        self._folders[name] = folder

    def add(self, name: str, folder: Path) -> None:
        """Load an adapter now; others may go for it.

        Raises:
            NoRoomError: all others are in use.
            ModelError: this is no adapter for this base, or it is larger than the bound.

        """
        if not self._enter(name, folder):
            raise NoRoomError("all loaded adapters are in use, and there is no room for another", where=name)
        self._folders[name] = folder

    def bring(self, name: str) -> bool:
        """Make sure that an adapter is loaded; False if there is no room until others have ended.

        Raises:
            GoneError: there is none of this name, or its files are gone.
            TanzimError: it cannot be loaded, or is too large by itself.

        """
        if name in self._built_in:
            return True
        if name in self._sizes:
            self._sizes.move_to_end(name)
            return True
        folder = self._folders.get(name)
        if folder is None:
            raise GoneError(f"there is no adapter '{name}' any more")
        return self._enter(name, folder)

    def hold(self, name: str | None) -> None:
        """Keep an adapter in memory until it is let go as often."""
        if name is not None:
            self._in_use[name] += 1

    def let_go(self, name: str | None) -> None:
        """Undo one `hold`."""
        if name is not None:
            self._in_use[name] -= 1

    def let_all_go(self) -> None:
        """Undo every `hold`."""
        self._in_use.clear()

    def ready(self, sequence: Sequence) -> bool:
        """Load what a waiting sequence needs; False if it must go on waiting.

        Where that fails, the sequence's ``error`` says why.
        """
        name = sequence.request.adapter
        if name is None:
            return True
        try:
            if not self.bring(name):
                return False
            self._fit(sequence)
        except TanzimError as error:
            sequence.error = error
        except Exception as error:  # noqa: BLE001 - whatever foreign files do to a reader, others go on
            sequence.error = ModelError(f"the adapter cannot be loaded ({type(error).__name__}: {error})")
        return True

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ModelError: there is none of this name, or it is answering.

        """
        if name not in self._folders:
            raise ModelError(f"there is no adapter '{name}'")
        if self._in_use[name]:
            raise ModelError(f"the adapter '{name}' is answering", fix="try again when it has ended")
        del self._folders[name]
        if name in self._sizes:
            self._evict(name)

    def _size(self, name: str, folder: Path) -> int:
        """Return what an adapter takes, in bytes."""
        if not folder.is_dir():
            raise GoneError("the adapter's folder is gone", where=str(folder))
        size = COPIES * 4 * _numbers(folder / WEIGHTS)
        if self._memory is not None and size > self._memory:
            raise TooLargeError(
                f"the adapter takes {size / 1e6:.0f} MB; there are {self._memory / 1e6:.0f} MB for all",
                where=name,
                fix="raise the bound",
            )
        return size

    def _evict(self, name: str) -> None:
        del self._sizes[name]
        self._drop(name)

    def _enter(self, name: str, folder: Path) -> bool:
        size = self._size(name, folder)
        going: list[str] = []
        if self._memory is not None:
            freed = 0
            for other, taken in self._sizes.items():
                if self.size - freed + size <= self._memory:
                    break
                if not self._in_use[other]:
                    going.append(other)
                    freed += taken
            if self.size - freed + size > self._memory:
                return False
        for other in going:
            self._evict(other)
        try:
            self._load(name, folder)
        except FileNotFoundError as error:  # deleted this moment
            raise GoneError("the adapter's files are gone", where=str(folder)) from error
        self._sizes[name] = size
        return True


def _numbers(weights: Path) -> int:
    """Return how many numbers a safetensors file holds, whatever their precision; 0 if it cannot be read."""
    try:
        with weights.open("rb") as stream:
            head = json.loads(stream.read(min(int.from_bytes(stream.read(8), "little"), _LONGEST_HEAD)))
        return sum(math.prod(one["shape"]) for name, one in head.items() if name != "__metadata__")
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return 0  # reading it in earnest says what is wrong
