"""Which page of the KV cache holds what.

A sequence's keys and values lie in pages of a fixed number of tokens, anywhere in one pool (vLLM:
Kwon et al., arXiv:2309.06180). A full page is known by what it holds: its tokens, those before them, and
the adapter; a later prompt that begins alike shares it and computes only its rest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

_Key = tuple[Hashable, tuple[int, ...]]


@dataclass(slots=True)
class Table:
    """The pages of one sequence.

    Args:
        pages: in the order of its tokens.
        tokens: how many of its tokens are computed.
        sealed: how many of the pages are full and known.
        node: stands for all tokens of the sealed pages.
        reserved: how many more pages are promised to it.

    """

    pages: list[int] = field(default_factory=list)
    tokens: int = 0
    sealed: int = 0
    node: Hashable = None
    reserved: int = 0


class Pages:
    """Lends pages to sequences, and keeps those that nobody holds until their room is needed.

    Args:
        count: pages of the pool.
        size: tokens of a page.

    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self._free = list(range(count - 1, -1, -1))
        self._holders: dict[int, int] = {}
        self._keys: dict[int, _Key] = {}
        self._known: dict[_Key, tuple[int, int]] = {}  # → page, node
        self._idle: OrderedDict[int, None] = OrderedDict()  # known, nobody holds them; oldest first
        self._reserved = 0
        self._nodes = 0

    @property
    def available(self) -> int:
        """Pages that can still be promised."""
        return len(self._free) + len(self._idle) - self._reserved

    @property
    def held(self) -> int:
        """Pages that sequences hold."""
        return len(self._holders)

    def begin(self, root: Hashable, ids: Sequence[int], most: int) -> Table | None:
        """Return a sequence's table, its known beginning filled in; None if there is no room for now.

        Args:
            root: what all its tokens depend on besides themselves, such as the adapter.
            ids: its prompt; of it at least the last token is left to be computed.
            most: tokens that it may come to.

        """
        table = Table(node=("root", root))
        while (table.sealed + 1) * self.size < len(ids):
            start = table.sealed * self.size
            found = self._known.get((table.node, tuple(ids[start : start + self.size])))
            if found is None:
                break
            table.pages.append(found[0])
            table.node = found[1]
            table.sealed += 1
        needed = -(-most // self.size) - table.sealed
        idle = sum(page in self._idle for page in table.pages)
        if needed > self.available - idle:
            return None
        for page in table.pages:
            self._holders[page] = self._holders.get(page, 0) + 1
            self._idle.pop(page, None)
        table.tokens = table.sealed * self.size
        table.reserved = needed
        self._reserved += needed
        return table

    def grow(self, table: Table, tokens: int) -> None:
        """Give a sequence the pages that this many more tokens need, out of those promised to it."""
        while len(table.pages) * self.size < table.tokens + tokens:
            assert table.reserved
            page = self._free.pop() if self._free else self._forget_oldest()
            self._holders[page] = 1
            table.pages.append(page)
            table.reserved -= 1
            self._reserved -= 1

    def advance(self, table: Table, ids: Sequence[int], tokens: int) -> None:
        """Note that tokens have been computed, so that full pages become known.

        Args:
            table: the sequence's.
            ids: its tokens from the first on.
            tokens: how many were computed.

        """
        table.tokens += tokens
        while (table.sealed + 1) * self.size <= table.tokens:
            start = table.sealed * self.size
            key = (table.node, tuple(ids[start : start + self.size]))
            if key in self._known:  # another sequence was quicker: what follows hangs on its page
                table.node = self._known[key][1]
            else:
                self._nodes += 1
                page = table.pages[table.sealed]
                self._known[key] = page, self._nodes
                self._keys[page] = key
                table.node = self._nodes
            table.sealed += 1

    def release(self, table: Table) -> None:
        """Take a sequence's pages back; those that are known stay until their room is needed."""
        for page in reversed(table.pages):  # the beginning, which others may share, goes last
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            del self._holders[page]
            if page in self._keys:
                self._idle[page] = None
            else:
                self._free.append(page)
        self._reserved -= table.reserved
        table.pages, table.reserved = [], 0

    def _forget_oldest(self) -> int:
        page, _ = self._idle.popitem(last=False)
        del self._known[self._keys.pop(page)]
        return page
