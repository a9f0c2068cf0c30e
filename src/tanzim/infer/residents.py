"""Which adapters lie in memory: loaded when they are asked for, the longest unused let go for others."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

from tanzim.adapters.folder import WEIGHTS
from tanzim.core.errors import ModelError, TanzimError
from tanzim.infer.sequence import Sequence

COPIES = 2  # what an adapter takes, over its file: as it came, and laid out for mixed batches


class Residents:
    """Loads adapters within a bound of memory.

    Args:
        load: puts the adapter of a folder under a name into the model.
        drop: takes it out again.

    """

    def __init__(self, load: Callable[[str, Path], None], drop: Callable[[str], None]) -> None:
        self._load, self._drop = load, drop
        self._folders: dict[str, Path] = {}
        self._fetched: dict[str, Path] = {}  # of those that wait for room
        self._sizes: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._in_use: Counter[str] = Counter()
        self.fetch: Callable[[str], Path] | None = None
        self.memory: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters that are loaded, or can be again."""
        return tuple(self._folders)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Adapters that lie in memory, the longest unused first."""
        return tuple(self._sizes)

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return sum(self._sizes.values())

    def add(self, name: str, folder: Path) -> None:
        """Load an adapter now; others may go for it.

        Raises:
            ModelError: this is no adapter for this base, or there is no room.

        """
        if not self._enter(name, folder):
            raise ModelError("all loaded adapters are in use, and there is no room for another", where=name)
        self._folders[name] = folder

    def bring(self, name: str) -> bool:
        """Make sure that an adapter is loaded; False if there is no room until others have ended.

        Raises:
            TanzimError: there is none of this name, it cannot be loaded, or it is too large by itself.

        """
        if name in self._sizes:
            self._sizes.move_to_end(name)
            return True
        folder = self._folders.get(name) or self._fetched.pop(name, None)
        if folder is None:
            if self.fetch is None:
                raise ModelError(f"there is no adapter '{name}'")
            folder = self.fetch(name)
        entered = self._enter(name, folder)
        (self._folders if entered else self._fetched)[name] = folder
        return entered

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
        if name is None or (name not in self._folders and self.fetch is None):
            return True  # the base, or an adapter that the model came with
        try:
            return self.bring(name)
        except TanzimError as error:
            sequence.error = error
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
        if self._sizes.pop(name, None) is not None:
            self._drop(name)

    def _enter(self, name: str, folder: Path) -> bool:
        weights = folder / WEIGHTS
        size = COPIES * weights.stat().st_size if weights.is_file() else 0
        if self.memory is not None and size > self.memory:
            raise ModelError(
                f"the adapter takes {size / 1e6:.0f} MB; there are {self.memory / 1e6:.0f} MB for all",
                where=name,
                fix="raise the bound",
            )
        going: list[str] = []
        if self.memory is not None:
            freed = 0
            for other, taken in self._sizes.items():
                if self.size - freed + size <= self.memory:
                    break
                if not self._in_use[other]:
                    going.append(other)
                    freed += taken
            if self.size - freed + size > self.memory:
                return False
        for other in going:
            del self._sizes[other]
            self._drop(other)
        self._load(name, folder)
        self._sizes[name] = size
        return True
