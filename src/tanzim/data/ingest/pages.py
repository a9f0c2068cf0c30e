"""One web page: fetched within bounds, its main text taken out in a process that can be stopped."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tanzim.core.errors import DataError
from tanzim.core.optional import need
from tanzim.data.ingest.client import Bounds, Unreachable, get, normal, refused
from tanzim.data.ingest.documents.blocks import Block
from tanzim.data.ingest.documents.contained import contained
from tanzim.data.ingest.documents.parts import Options
from tanzim.data.ingest.guard import Guard

_HTML = ("text/html", "application/xhtml+xml", "")
_PLAIN = ("text/plain", "text/markdown")
_SECONDS = 60.0  # for the text of one page: real ones take a tenth of one
_LINKS = 10_000  # of one page
_TRIES = 3
_BUSY = (429, 500, 502, 503, 504)
_HEADERS = {"Accept": "text/html,application/xhtml+xml,text/plain;q=0.8,*/*;q=0.1", "Accept-Encoding": "gzip"}


@dataclass(frozen=True, slots=True)
class Page:
    """What a web page says.

    Args:
        url: where it was found, after redirects.
        text: its main text, paragraphs with a blank line between them.
        title: of its window.
        links: the pages it links to.

    """

    url: str
    text: str
    title: str = ""
    links: list[str] = field(default_factory=list)


def read_page(
    url: str, guard: Guard, bounds: Bounds, limit: int, check: Callable[[str], None], wait: float
) -> Page:
    """Fetch a page and take out its main text.

    Args:
        url: of the page.
        guard: says which addresses may be connected to.
        bounds: what it may cost.
        limit: bytes at the most, once unzipped.
        check: asked before each request (see `client.get`).
        wait: seconds before a busy server is asked again; twice as many the second time.

    Raises:
        Unreachable: it cannot be had, or is no text.

    """
    for attempt in range(_TRIES):
        with get(url, guard, bounds, _HEADERS, check) as answer:
            if answer.status == 200:
                kind, charset = _kind(answer.headers.get("content-type", ""))
                if kind not in (*_HTML, *_PLAIN):
                    raise Unreachable(answer.url, "the page is no text", kind)
                body = answer.body(limit)
                break
            if answer.status not in _BUSY or attempt == _TRIES - 1:
                raise refused(answer)
            after = answer.headers.get("retry-after", "")
        time.sleep(min(30.0, float(after) if after.isdecimal() else wait * 2**attempt))
    if kind in _PLAIN:
        return Page(answer.url, _decoded(body, charset or "utf-8", answer.url).strip())
    return _page(answer.url, body, charset)


def _kind(header: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = header
    return (message.get_content_type() if header else ""), message.get_content_charset() or ""


def _decoded(body: bytes, charset: str, url: str) -> str:
    try:
        return body.decode(charset)
    except (LookupError, ValueError) as error:
        raise Unreachable(url, "the page is not in the encoding that it names", str(error)[:100]) from None


def _page(url: str, body: bytes, charset: str) -> Page:
    if charset:
        body = _decoded(body, charset, url).encode("utf-8", "replace")
    with tempfile.TemporaryDirectory(prefix="tanzim-page-") as folder:
        path = Path(folder) / "page.html"
        path.write_bytes(body)
        options = Options(limit=len(body) + 1, encoding="utf-8" if charset else "auto")
        try:
            parts = [p for p in contained(path, "html", options, _SECONDS) if isinstance(p, Block)]
        except DataError as error:
            raise Unreachable(url, "the page holds no text that can be read", error.what) from None
    title, links = _around(url, body)
    return Page(url, "\n\n".join(part.text for part in parts), title, links)


def _around(url: str, body: bytes) -> tuple[str, list[str]]:
    """Return the title of a page and the addresses it links to."""
    etree: Any = need("lxml.etree", "web")
    named = None  # the parser looks for the encoding that the page names
    with suppress(UnicodeDecodeError):
        body.decode()
        named = "utf-8"
    try:
        root = etree.fromstring(body, etree.HTMLParser(no_network=True, encoding=named))
    except (etree.XMLSyntaxError, ValueError):
        return "", []
    if root is None:
        return "", []
    titles = root.xpath("//head/title")
    bases = root.xpath("//head/base/@href")
    links: dict[str, None] = {}
    for target in root.xpath("//a/@href")[:_LINKS]:
        try:
            links[normal(target, normal(bases[0], url) if bases else url)] = None
        except Unreachable:
            continue  # mailto, javascript and the like
    return " ".join("".join(titles[0].itertext()).split()) if titles else "", list(links)


def host(url: str) -> str:
    """Return the host and port of a URL as `client.normal` writes it."""
    return urlsplit(url).netloc
