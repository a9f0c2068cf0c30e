"""Metadata of a published dataset as Croissant JSON-LD (MLCommons, version 1.0).

With it the data is findable (identifier, keywords), accessible (files by relative URL and SHA-256),
interoperable (schema.org and Croissant's vocabulary) and reusable (licence, provenance, what was done): the
FAIR principles (Wilkinson et al. 2016, doi:10.1038/sdata.2016.18). http://mlcommons.org/croissant/1.0
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tanzim.core.files import sha256
from tanzim.core.records import Json
from tanzim.data.describe.config import CardConfig
from tanzim.data.prepare import DataReport

CONFORMS = "http://mlcommons.org/croissant/1.0"
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet"),
    *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
    "transform",
)
# Columns of the rows (see `describe.rows`), and what they hold; lists and objects are JSON.
_COLUMNS = {
    "messages": "The conversation: a list of turns with role and content.",
    "tools": "Functions the assistant may call.",
    "prompt": "The conversation both answers belong to.",
    "chosen": "The preferred answer.",
    "rejected": "The other answer.",
    "text": "The text.",
    "label": "The class of the text.",
    "words": "The words of the text.",
    "tags": "A tag for each word.",
    "provenance": "Source file and row, and how the example was made out of it.",
}
_OBJECTS = ("messages", "tools", "prompt", "chosen", "rejected")


def croissant(
    report: DataReport, files: Mapping[str, Path], columns: Sequence[str], card: CardConfig, name: str
) -> Json:
    """Return the metadata of published files.

    Args:
        report: what became of every row.
        files: the file of JSON Lines of each split.
        columns: the columns its rows have.
        card: what people have said of the data.
        name: of the run.

    """
    title = card.title or name
    steps = ", ".join(step["type"] for step in report.steps) or "none"
    about = card.description or f"{sum(report.splits.values()):,} examples. {report.reason}"
    value: Json = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "name": title,
        "description": f"{about} Steps of preparation: {steps}.",
        "conformsTo": CONFORMS,
        "version": card.version,
        "identifier": identifier(report),
        "license": card.licence,
        "url": card.url,
        "citeAs": card.citation,
        "creator": [{"@type": "sc:Organization", "name": creator} for creator in card.creators],
        "keywords": card.keywords,
        "isBasedOn": sorted({str(one["path"]) for one in report.files}),
        "distribution": [_file(split, path) for split, path in files.items()],
        "recordSet": [_records(split, path, columns) for split, path in files.items()],
    }
    return {key: said for key, said in value.items() if said not in (None, [], "")}


def identifier(report: DataReport) -> str:
    """Return a name of the content: the SHA-256 over the fingerprints of all splits, as a URN."""
    prints = "\n".join(f"{split} {digest}" for split, digest in sorted(report.fingerprints.items()))
    return f"urn:sha256:{hashlib.sha256(prints.encode()).hexdigest()}"


def _context() -> Json:
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        **{term: f"cr:{term}" for term in _TERMS},
    }


def _file(split: str, path: Path) -> Json:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "description": f"The {split} split as JSON Lines.",
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/jsonlines",
        "sha256": sha256(path),
    }


def _records(split: str, path: Path, columns: Sequence[str]) -> Json:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{column}",
            "name": f"{split}/{column}",
            "description": _COLUMNS[column],
            "dataType": "sc:Text",
            **({"repeated": True} if column in ("words", "tags") else {}),
            "source": {"fileObject": {"@id": path.name}, "extract": {"column": column}},
        }
        for column in _COLUMNS
        if column in columns and column not in _OBJECTS
    ]
    value = {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}
    # A list of objects, of which rows of another kind have none, is what readers of Croissant 1.0 stop at.
    nested = [f"{column}: {_COLUMNS[column]}" for column in _OBJECTS if column in columns]
    return value | ({"description": f"The file's rows also have {' '.join(nested)}"} if nested else {})
