"""Rows of a Hugging Face dataset, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.optional import need
from tanzim.data.ingest.rows import Rejected, Row

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<subset>[\w.-]+))?(?::(?P<split>[\w.-]+))?")


def read_hub(source: str) -> Iterator[Row | Rejected]:
    """Yield the rows of ``hf:owner/name``, ``hf:owner/name/subset`` or either with ``:split``.

    The package `datasets` does the work and honours HF_HOME, HF_TOKEN, HF_ENDPOINT and
    HF_HUB_OFFLINE. Code in the dataset's repository is not run.

    Raises:
        ConfigError: the id is not of this form.
        MissingExtra: `datasets` is not installed.
        DataError: the dataset cannot be reached or read.

    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise ConfigError(
            f"'{source}' is not a dataset id",
            where="data.path",
            fix="write hf:owner/name, or hf:owner/name:split",
        )
    datasets = need("datasets", "hub")
    number = 0
    split = match["split"] or "train"
    try:
        rows = datasets.load_dataset(match["name"], match["subset"], split=split, streaming=True)
        for value in rows:
            number += 1
            yield Row(source, number, dict(value))
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the dataset cannot be read: {first}",
            where=f"{source} (split {split}), after row {number}",
            fix="check the id, the split and the network (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE)",
        ) from None
