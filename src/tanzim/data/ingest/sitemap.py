"""Sitemaps: the pages that a site names (sitemaps.org), as XML, gzipped, as plain text, or an index."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tanzim.core.optional import need
from tanzim.data.ingest.client import Bounds, Unreachable, get, normal, refused
from tanzim.data.ingest.encoding import GZIP
from tanzim.data.ingest.guard import Guard

_LARGEST = 52_428_800  # bytes, by the protocol
_DEEPEST = 2  # an index may name sitemaps, not indexes; some sites do it once more
_MOST = 1000  # sitemaps of one index


def read_sitemap(url: str, guard: Guard, bounds: Bounds, deep: int = 0) -> Iterator[str]:
    """Yield the pages of a sitemap, and of those that it names, within its own host.

    Raises:
        Unreachable: it cannot be had, or is none.

    """
    with get(url, guard, bounds) as answer:
        if answer.status != 200:
            raise refused(answer)
        body = _unzipped(answer.body(_LARGEST), url)
    host = urlsplit(normal(url)).netloc
    kind, found = _named(body, url)
    within = [one for one in found if urlsplit(one).netloc == host]
    if kind == "pages":
        yield from within
        return
    if deep >= _DEEPEST:
        raise Unreachable(url, "the sitemaps name one another without end")
    for inner in within[:_MOST]:
        yield from read_sitemap(inner, guard, bounds, deep + 1)


def _unzipped(body: bytes, url: str) -> bytes:
    if not body.startswith(GZIP):
        return body
    engine = zlib.decompressobj(31)
    try:
        text = engine.decompress(body, _LARGEST)
    except zlib.error as error:
        raise Unreachable(url, "the sitemap is damaged", str(error)) from None
    if engine.unconsumed_tail:
        raise Unreachable(url, "the sitemap is too large", f"above {_LARGEST / 1e6:.0f} MB once unzipped")
    return text


def _named(body: bytes, url: str) -> tuple[str, list[str]]:
    """Return what a sitemap names, pages or sitemaps, and their addresses."""
    text = body.decode("utf-8-sig", "replace").strip()
    if not text.startswith("<"):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines or not all(line.startswith(("http://", "https://")) for line in lines):
            raise Unreachable(url, "this is not a sitemap", "neither XML nor a list of URLs")
        return "pages", _normal(lines)
    parser: Any = need("defusedxml.ElementTree", "web")
    try:
        root = parser.fromstring(text)  # refuses entities, which could grow without end or read files
    except (parser.ParseError, ValueError) as error:
        raise Unreachable(url, "the sitemap is not XML that can be read", _first(error)) from None
    tag = root.tag.rpartition("}")[2]
    if tag not in ("urlset", "sitemapindex"):
        raise Unreachable(url, "this is not a sitemap", f"its XML starts with <{tag}>")
    found = [
        (element.text or "").strip()
        for one in root
        for element in one
        if element.tag.rpartition("}")[2] == "loc" and (element.text or "").strip()
    ]
    return ("pages" if tag == "urlset" else "sitemaps"), _normal(found)


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _normal(urls: list[str]) -> list[str]:
    found = []
    for url in urls:
        try:
            found.append(normal(url))
        except Unreachable:
            continue  # no address of a page: mailto and the like
    return found
