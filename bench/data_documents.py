"""Measure what is read of documents: main text of web pages, and what becomes of PDF and Markdown files.

Pages are compared with the article that a person took out of each (words in common, as in the article
extraction benchmark: 4-grams of words), beside the naive baseline of all that a page shows.

    python bench/data_documents.py ../shared/data
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import Counter
from pathlib import Path

from tanzim.data.config import DataConfig
from tanzim.data.ingest.documents.html import read_html
from tanzim.data.ingest.read import ingest
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import find


def grams(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[start:] for start in range(4)), strict=False))


def pages(folder: Path) -> dict[str, dict[str, float]]:
    truth = json.loads((folder / "ground_truth.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = {}
    for way in ("main", "all"):
        rates = []
        for path in sorted(folder.glob("*.html.gz")):
            page = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
            text = "\n".join(block.text for block in read_html(page, main=way == "main"))
            ours, theirs = grams(text), grams(truth[path.name.split(".")[0]]["articleBody"])
            same = (ours & theirs).total()
            rates.append((same / max(1, ours.total()), same / max(1, theirs.total())))
        precision = sum(one for one, _ in rates) / len(rates)
        recall = sum(two for _, two in rates) / len(rates)
        f1 = 2 * precision * recall / (precision + recall)
        found[way] = {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}
        print(f"{len(rates)} pages, {way:4}: precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}")
    return found


def files(folder: Path) -> dict[str, dict[str, object]]:
    config = DataConfig(path=str(folder))
    found: dict[str, dict[str, object]] = {}
    for source in find(str(folder)).sources:
        items = list(ingest(source, config).items())
        lost = [f"{one.reason}" for one in items if isinstance(one, Rejected)]
        texts = [one.text for one in items if not isinstance(one, Rejected)]
        about = {"examples": len(texts), "characters": sum(map(len, texts)), "rejected": lost[:3]}
        found[Path(source.name).name] = about
        print(f"{Path(source.name).name:34} {about}")
        if texts:
            print("    " + texts[0][:300].replace("\n", "\n    "))
    return found


def main() -> None:
    data = Path(sys.argv[1])
    html = pages(data / "web" / "en_html")
    read = {name: files(data / name) for name in ("pdf", "web/fa_html", "persian/guide")}
    print(json.dumps({"html": html, "files": read}, ensure_ascii=False))


if __name__ == "__main__":
    main()
