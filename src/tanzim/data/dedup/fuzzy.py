"""Near duplicates: texts that share most of their character 5-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tanzim.core.records import Json, Progress
from tanzim.data.dedup.columns import Array, Rows, Table
from tanzim.data.dedup.config import DedupFuzzyConfig
from tanzim.data.dedup.members import GroupStep, Parents
from tanzim.data.dedup.near import Search, text_columns
from tanzim.data.similarity import MinHasher


class DedupFuzzy(GroupStep[DedupFuzzyConfig]):
    """Of examples that are nearly the same keep one (MinHash LSH; Broder, 1997; Leskovec et al., 3.4)."""

    reason = "nearly the same as another example"
    said = "nearly the same as {where} ({similarity:.2f}; kept as {why})"

    def look(self, texts: Sequence[str]) -> dict[str, Array]:
        """Return signatures and the keys of their bands."""
        config = self.config
        hasher = MinHasher(self.seed)
        return text_columns(list(texts), hasher, config.threshold, verify=config.verify == "jaccard")

    def link(self, table: Table, parents: Parents, progress: Progress) -> Json:
        """Put each under the least of those that it is, in steps, nearly the same as."""
        search = self._search(table, parents)
        search.run(progress)
        return {"crowded": search.crowded} if search.crowded else {}

    def alike(self, table: Table, rows: Rows, kept: Rows) -> Array:
        """Return how alike pairs of examples are, [M]."""
        search = self._search(table, np.empty(0, np.uint32))
        pairs = np.stack([rows, kept])
        return search.similarities(pairs) if self.config.verify == "jaccard" else search.estimates(pairs)

    def _search(self, table: Table, parents: Parents) -> Search:
        return Search(table, parents, self.config.threshold, verify=self.config.verify == "jaccard")
