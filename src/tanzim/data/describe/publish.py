"""Prepared data as a folder for others: rows, a data sheet, metadata."""

from __future__ import annotations

import json
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.files import new_folder, write_json, write_text
from tanzim.core.records import Progress, no_progress
from tanzim.data.describe.config import CardConfig
from tanzim.data.describe.croissant import croissant
from tanzim.data.describe.datasheet import datasheet, questions
from tanzim.data.describe.datasheet_page import datasheet_page
from tanzim.data.describe.rows import to_row
from tanzim.data.describe.tally import SPLITS, Tally
from tanzim.data.prepare import DataReport
from tanzim.data.store import examples_of, read_batches

_SHEETS = ("DATASHEET.md", "DATASHEET.html", "croissant.json")


def publish(
    data: Path, out: Path, card: CardConfig, name: str, progress: Progress = no_progress
) -> list[Path]:
    """Write each split as JSON Lines, with ``DATASHEET.md`` (and the same as a page) and ``croissant.json``.

    Args:
        data: the folder that ``prepare`` wrote.
        out: the folder to write, whole or not at all.
        card: what people have said of the data.
        name: of the run.
        progress: told the examples written.

    Raises:
        DataError: ``data`` holds no prepared data, or ``out`` is there and holds other files, too.

    Returns:
        The files.

    """
    report, counts = DataReport.read(data), Tally()
    _check_room(out)
    columns: dict[str, None] = {}
    with new_folder(out) as folder:
        files = {split: folder / f"{split}.jsonl" for split in SPLITS if report.splits.get(split)}
        for split, path in files.items():
            with path.open("w", encoding="utf-8") as stream:
                for batch in read_batches(data / f"{split}.arrow"):
                    for example, _ in examples_of(batch):
                        counts.add(split, example)
                        written = to_row(example)
                        columns |= dict.fromkeys(written)
                        stream.write(json.dumps(written, ensure_ascii=False) + "\n")
                    progress(counts.rows.total(), sum(report.splits.values()), f"writing {split}")
        sheet, shown, metadata = (folder / file for file in _SHEETS)
        write_text(sheet, datasheet(report, counts, card, name))
        groups = questions(report, counts, card)
        write_text(shown, datasheet_page(card.title or name, card.description, groups))
        write_json(metadata, croissant(report, files, list(columns), card, name))
    return sorted(out.iterdir())


def _check_room(out: Path) -> None:
    """Refuse a folder that holds what others put there: it is replaced as a whole."""
    ours = {*_SHEETS, *(f"{split}.jsonl" for split in SPLITS)}
    found = sorted({path.name for path in out.iterdir()} - ours) if out.is_dir() else []
    if found or out.is_file():
        raise DataError(
            f"the folder holds other files, which would be lost: {', '.join(found[:3])}"
            if found
            else "this is a file, not a folder",
            where=str(out),
            fix="name a new folder",
        )
