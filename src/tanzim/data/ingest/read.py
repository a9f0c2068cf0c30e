"""One source from its bytes to examples: open, recognise, convert; every row is kept or rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from tanzim.core.records import Example, Json
from tanzim.data.config import DataConfig
from tanzim.data.ingest.convert import Converter
from tanzim.data.ingest.detect import SAMPLE, Detection, detect
from tanzim.data.ingest.rows import BadRow, Rejected, Row, excerpt
from tanzim.data.ingest.sources import Opened, Source, describe, open_source
from tanzim.data.similarity import digest, normalise
from tanzim.data.store import to_text

_CONTEXT = 50  # characters from which a context in common makes examples kin
_MOST_FAULTS = 2000  # rejects before the first good rows, beyond which nothing is recognised


@dataclass(slots=True)
class Ingest:
    """A source being read: what it is, and how many rows went where so far."""

    source: Source
    opened: Opened
    detection: Detection | None
    converter: Converter | None
    head: list[Row | Rejected]
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        """Rows read so far."""
        return self.kept + self.rejected.total()

    def items(self, skip: int = 0) -> Iterator[Example | Rejected]:
        """Yield every row of the source after the first ``skip``, as an example or as a reject."""
        for row in islice(chain(self.head, self.opened.rows), skip, None):
            result = row if isinstance(row, Rejected) else self._convert(row)
            if isinstance(result, Rejected):
                self.rejected[result.reason] += 1
            else:
                self.kept += 1
            yield result

    def _convert(self, row: Row) -> Example | Rejected:
        assert self.converter is not None  # a good row has been seen: the format is known
        try:
            example = self.converter(row)
            if row.about:
                example = replace(example, about={**row.about, **example.about})
            context = self.converter.context(row)
            if len(context) >= _CONTEXT:
                group = f"{digest(normalise(context)):016x}"
                example = replace(example, about={"group": group, **example.about})
            to_text(example).encode()
        except BadRow as error:
            return Rejected(row.source, row.row, error.reason, error.detail, excerpt(row.value))
        except UnicodeEncodeError:
            reason = "the text holds half of a surrogate pair"
        except RecursionError:
            reason = "the JSON is nested too deeply"
        except (ValueError, TypeError) as error:  # NaN in tool arguments, bytes or dates in a Parquet cell
            return Rejected(
                row.source, row.row, "a value cannot be written as JSON", str(error), excerpt(row.value)
            )
        else:
            return example
        return Rejected(row.source, row.row, reason, "", excerpt(row.value))

    def describe(self) -> Json:
        """Return what the report says of this source."""
        return {
            **describe(self.source, self.opened),
            "format": self.detection.format if self.detection else None,
            "reason": self.detection.reason if self.detection else "no row could be read",
            "columns": self.detection.columns if self.detection else {},
            "rows": self.read,
            "kept": self.kept,
            "rejected": self.rejected.total(),
        }


def ingest(source: Source, config: DataConfig) -> Ingest:
    """Open a source and recognise its format from the first rows.

    Raises:
        DataError: the source cannot be read, or its rows are of no known format.

    """
    opened = open_source(source, config)
    head: list[Row | Rejected] = []
    good: list[Json] = []
    for row in opened.rows:
        head.append(row)
        if isinstance(row, Row):
            good.append(row.value)
        if len(good) >= SAMPLE or (not good and len(head) >= _MOST_FAULTS):
            break
    if not good:
        return Ingest(source, opened, None, None, head)
    detection = detect(good, config, source.name)
    return Ingest(source, opened, detection, Converter(detection, config, source.name), head)
