"""Web pages: listed, named by sitemaps, or found by following links within their hosts."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from tanzim.core.files import new_file
from tanzim.core.records import Json
from tanzim.data.ingest.client import Bounds, Unreachable, normal
from tanzim.data.ingest.config import WebSource
from tanzim.data.ingest.fetch import Job
from tanzim.data.ingest.pages import Page, host, read_page
from tanzim.data.ingest.robots import Robots
from tanzim.data.ingest.sitemap import read_sitemap
from tanzim.data.ingest.snapshot import SnapshotWriter, described, now

_LEFT = "left, as max_pages was reached"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one address.

    Args:
        url: that was asked for.
        asked: whether the config or a sitemap names it; others were found as links.
        page: what it says; None if it could not be had.
        reason: why not.
        detail: of that.
        time: when it was asked for.

    """

    url: str
    asked: bool
    page: Page | None = None
    reason: str = ""
    detail: str = ""
    time: str = ""


@dataclass(slots=True)
class _Frontier:
    """Addresses to ask for, in the order in which they were found; each once."""

    most: int
    waiting: deque[tuple[str, int, bool]] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    aside: Counter[str] = field(default_factory=Counter)
    taken: int = 0

    def add(self, url: str, deep: int, asked: bool) -> None:
        if url in self.known:
            return
        if self.taken + len(self.waiting) >= self.most:
            self.aside[_LEFT] += 1
            return
        self.known.add(url)
        self.waiting.append((url, deep, asked))

    def next(self) -> tuple[str, int, bool] | None:
        if not self.waiting:
            return None
        self.taken += 1
        return self.waiting.popleft()


class _Log:
    """What was seen so far, on disk, for a run that goes on after an interruption."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a+b")
        self._stream.seek(0)
        self._places: dict[str, int] = {}
        whole = 0
        for line in self._stream:
            if line.endswith(b"\n"):  # else it was cut short
                self._places[self._seen(line).url] = whole
                whole += len(line)
        self._stream.truncate(whole)

    @staticmethod
    def _seen(line: bytes) -> Seen:
        value = json.loads(line.decode("utf-8", "surrogatepass"))
        page = Page(**value["page"]) if value["page"] else None
        return Seen(**{**value, "page": page})

    def get(self, url: str) -> Seen | None:
        if url not in self._places:
            return None
        self._stream.seek(self._places[url])
        return self._seen(self._stream.readline())

    def add(self, seen: Seen) -> None:
        text = json.dumps(asdict(seen), ensure_ascii=False) + "\n"
        self._stream.write(text.encode("utf-8", "surrogatepass"))  # "a": at its end, wherever it was read
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def fetch(source: WebSource, job: Job) -> list[Json]:
    """Write the main text of each page to the folder of ``job``; go on where an earlier run stopped.

    Raises:
        DataError: an address that the config names is not public and not allowed, or a sitemap fails.
        MissingExtra: a package is not installed.

    """
    log = job.folder / "seen.jsonl"
    aside: Counter[str] = Counter()
    pages = 0
    name = (source.urls or source.sitemaps)[0]
    with new_file(job.folder / "rows.jsonl") as stream:
        writer = SnapshotWriter(stream)
        for seen in crawl(source, job, log, aside):
            pages += 1
            if seen.page is not None and seen.page.text:
                about = {"url": seen.page.url, "title": seen.page.title, "fetched": seen.time}
                writer.row({"text": seen.page.text}, {key: value for key, value in about.items() if value})
            elif seen.asked:
                writer.rejected(seen.reason or "the page shows no text", seen.detail, seen.url)
            else:
                aside[seen.reason or "shows no text"] += 1
            job.progress(pages, None, f"fetching {seen.url[:60]}")
    log.unlink(missing_ok=True)
    more = {"pages": pages, "aside": dict(aside)}
    return [described("rows.jsonl", name, "the main text of web pages", rows=writer.rows, **more)]


def crawl(source: WebSource, job: Job, log: Path, aside: Counter[str]) -> Iterator[Seen]:
    """Yield what came of each address, breadth first, those of the config before those of links.

    Args:
        source: where to begin, and how far to go.
        job: says which addresses may be connected to.
        log: keeps what was seen, for a run that goes on.
        aside: takes the number of links that were not followed, by reason.

    """
    bounds = Bounds(source.timeout_s, source.max_redirects, whole=True)
    robots = Robots(job.guard, bounds, source.delay_s)
    frontier = _Frontier(source.max_pages, aside=aside)
    for url in source.urls:
        frontier.add(normal(url), 0, True)
    for sitemap in source.sitemaps:
        for url in read_sitemap(sitemap, job.guard, bounds):
            frontier.add(url, 0, True)
    hosts = {host(url) for url, _, _ in frontier.waiting}
    read: set[str] = set()
    with _Log(log) as earlier:
        while (one := frontier.next()) is not None:
            url, deep, asked = one
            seen = earlier.get(url)
            if seen is None:
                seen = _visit(url, asked, source, job, robots, bounds)
                earlier.add(seen)
            if seen.page is not None:
                again = seen.page.url in read
                read.add(seen.page.url)
                if again:
                    aside["leads to a page that was read already"] += 1
                    continue
                if deep < source.depth:
                    for link in seen.page.links:
                        if host(link) in hosts:
                            frontier.add(link, deep + 1, False)
            yield seen


def _visit(url: str, asked: bool, source: WebSource, job: Job, robots: Robots, bounds: Bounds) -> Seen:
    try:
        page = read_page(url, job.guard, bounds, int(source.max_page_mb * 1e6), robots.check, source.delay_s)
    except Unreachable as error:
        if (
            asked
            and error.reason == "the address is not public"
            and error.where
            and host(error.where) == host(url)
        ):
            raise
        detail = error.detail if error.where == url else f"{error.detail} ({error.where})".strip()
        return Seen(url, asked, None, error.reason, detail, now())
    return Seen(url, asked, page, time=now())
