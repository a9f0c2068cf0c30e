"""How much of a page's main text is taken, and how little else: token F1 against written ground truth.

    python bench/data_web.py /path/to/shared/data/web

Serves 20 English news and blog pages, and 48 English and Persian ones of `data_web_pages.py`, on this
machine, reads them as a source of type ``web`` does (robots.txt, request, extraction in another process),
and compares the words with those of the article. Beside it the naive way, every text that stands in the body
without scripts and styles, and the extractor as it comes (trafilatura with its fallbacks, which Tanzim leaves
out). Where the Persian pages are, their half-spaces are counted on the page and in what is taken. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import lxml.html
import trafilatura

from data_web_pages import pages
from tanzim.core.records import no_progress
from tanzim.data.config import DataConfig
from tanzim.data.ingest.fetch import fetch_all
from tanzim.data.ingest.rows import Row
from tanzim.data.ingest.snapshot import read_snapshot


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Write no log."""


def f1(found: str, true: str) -> tuple[float, float, float]:
    """Return precision, recall and F1 of words, each counted as often as it stands there."""
    ours, theirs = (Counter(re.findall(r"\w+", text)) for text in (found, true))
    both = (ours & theirs).total()
    if not both:
        return 0.0, 0.0, 0.0
    precision, recall = both / ours.total(), both / theirs.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def naive(page: bytes) -> str:
    """Return all text of the body."""
    tree = lxml.html.fromstring(page, parser=lxml.html.HTMLParser(encoding="utf-8"))
    for element in tree.xpath("//script|//style|//noscript|//template|//head"):
        element.drop_tree()
    return str(tree.text_content())


def crawled(pages: dict[str, bytes]) -> dict[str, str]:
    """Read pages as a source of type web does; return the text of each."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TANZIM_CACHE"] = f"{folder}/cache"
        root = Path(folder) / "site"
        root.mkdir()
        for name, page in pages.items():
            (root / f"{name}.html").write_bytes(page)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = f"http://127.0.0.1:{server.server_address[1]}/"
        source = {"type": "web", "urls": [f"{start}{name}.html" for name in pages], "delay_s": 0}
        config = DataConfig.model_validate({"sources": [source], "allow_hosts": ["127.0.0.1"]})
        ((found, _),) = fetch_all(config, no_progress)
        assert found.path is not None
        rows = [row for row in read_snapshot(found.path, found.name, 10**8) if isinstance(row, Row)]
        server.shutdown()
        server.server_close()
    by_name = {row.about["url"].removeprefix(start).removesuffix(".html"): row.value["text"] for row in rows}
    return {name: by_name.get(name, "") for name in pages}


def usual(page: bytes) -> str:
    """Return what the extractor takes by its own defaults."""
    return trafilatura.extract(page.decode("utf-8", "replace"), include_comments=False) or ""


def report(name: str, scores: list[tuple[float, float, float]]) -> dict[str, float]:
    precision, recall, score = (statistics.fmean(column) for column in zip(*scores, strict=True))
    least = min(one[2] for one in scores)
    print(f"  {name:24} {precision:9.3f} {recall:9.3f} {score:9.3f} {least:9.3f}")
    return {"precision": precision, "recall": recall, "f1": score, "least": least}


def compared(title: str, served: dict[str, bytes], truth: dict[str, str], texts: dict[str, str]) -> object:
    """Print and return how well each way takes the true texts of these pages."""
    print(f"{title}, {len(served)} pages")
    ways: dict[str, Callable[[str], str]] = {
        "all text of the page": lambda name: naive(served[name]),
        "trafilatura's defaults": lambda name: usual(served[name]),
        "main text (tanzim)": lambda name: texts[name],
    }
    return {way: report(way, [f1(take(name), truth[name]) for name in served]) for way, take in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path)
    folder = parser.parse_args().path
    given = json.loads((folder / "en_html" / "ground_truth.json").read_text(encoding="utf-8"))
    read = {name: gzip.decompress((folder / "en_html" / f"{name}.html.gz").read_bytes()) for name in given}
    written = list(pages())
    start = time.perf_counter()
    texts = crawled({**read, **{name: page for name, _, page, _ in written}})
    seconds = (time.perf_counter() - start) / len(texts)
    print(f"{len(texts)} pages, {seconds:.2f} s each\n")
    print(f"{'mean over pages':26} {'precision':>9} {'recall':>9} {'F1':>9} {'least F1':>9}")
    result = {
        "collected": compared("collected", read, {n: one["articleBody"] for n, one in given.items()}, texts)
    }
    for language in ("en", "fa"):
        mine = [one for one in written if one[1] == language]
        result[f"written_{language}"] = compared(
            f"written, {language}", {one[0]: one[2] for one in mine}, {one[0]: one[3] for one in mine}, texts
        )
    persian = {path.stem: path.read_bytes() for path in sorted((folder / "fa_html").glob("*.html"))}
    if persian:
        print(f"\n{'Persian page':24} {'half-spaces in the text':>24} {'taken':>9}")
        for name, text in crawled(persian).items():
            shown = naive(persian[name]).count("\u200c")
            print(f"{name:24} {shown:24} {text.count(chr(0x200C)):9}")
    print(json.dumps({"pages": len(texts), "seconds_per_page": round(seconds, 3), **result}))


if __name__ == "__main__":
    main()
