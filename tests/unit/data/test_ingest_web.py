"""Web pages from a site on this machine: main text, robots.txt, links, sitemaps, and what must be refused."""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from local_site import Site, local_site

from tanzim.core.errors import ConfigError, DataError
from tanzim.data.config import DataConfig
from tanzim.data.ingest import robots
from tanzim.data.ingest.client import Bounds, Unreachable, get, normal
from tanzim.data.ingest.fetch import fetch_all
from tanzim.data.ingest.guard import Guard, NotPublic, is_public
from tanzim.data.ingest.snapshot import read_snapshot
from tanzim.data.prepare import prepare
from tanzim.data.store import ExampleStore

LOCAL = Guard(("127.0.0.1",))
MENU = "<nav><ul><li><a href='/'>Home</a></li><li><a href='/about'>About us</a></li></ul></nav>"
TEXT = (
    "The river rises in the hills behind the town and reaches the sea after ninety kilometres. "
    "Its water turned three mills until the dam was finished, and the last of them is a museum now."
)
FARSI = (
    "این رودخانه از کوه‌های پشت شهر سرچشمه می‌گیرد و پس از نود کیلومتر به دریا می‌رسد. "
    "آب آن سه آسیاب را می‌گرداند، تا آن‌که سد ساخته شد؛ آخرین آن‌ها اکنون موزه‌ای کوچک است."
)


def _html(*paragraphs: str, title: str = "A page", links: tuple[str, ...] = ()) -> str:
    text = "".join(f"<p>{one}</p>" for one in paragraphs)
    more = "".join(f"<p>See <a href='{link}'>this page</a>.</p>" for link in links)
    return (
        f"<html><head><title>{title}</title><script>var x = 1;</script></head><body>{MENU}"
        f"<article><h1>{title}</h1>{text}{more}</article><footer>All rights reserved</footer></body></html>"
    )


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setenv("TANZIM_CACHE", str(tmp_path / "cache"))
    with local_site() as one:
        yield one


def _config(**source: Any) -> DataConfig:
    settings = {"type": "web", "delay_s": 0, "timeout_s": 60, **source}
    more = {"allow_hosts": ["127.0.0.1"], "workers": 1, "split": {"validation": 0, "test": 0}}
    return DataConfig.model_validate({"sources": [settings], **more})


def _rows(config: DataConfig) -> tuple[list[Any], dict[str, Any]]:
    ((source, origin),) = fetch_all(config, lambda *_: None)
    assert origin == 0
    return list(read_snapshot(source.path, source.name, 10**8)), source.fetched


def test_main_text_with_its_address(site: Site, tmp_path: Path) -> None:
    site.html("/river", _html(TEXT, TEXT.replace("river", "brook"), title="The river"))
    site.html("/rud", _html(FARSI, title="رودخانه"))
    config = _config(urls=[f"{site.url}/river", f"{site.url}/rud"])
    report = prepare(config, tmp_path / "out", seed=1)
    assert report.rows_read == 2
    found = {example.about["url"]: example for example in ExampleStore(tmp_path / "out" / "train.arrow")}
    river, rud = found[f"{site.url}/river"], found[f"{site.url}/rud"]
    assert TEXT in river.text
    assert "About us" not in river.text
    assert "rights reserved" not in river.text
    assert FARSI in rud.text  # its half-spaces, too
    assert rud.about["title"] == "رودخانه"
    assert river.provenance.row == 1
    assert site.paths.count("/robots.txt") == 1
    assert report.files[0]["fetched"]["time"].endswith("Z")
    # A second run asks for nothing; refresh does, and what did not change is not read again.
    asked = len(site.asked)
    again = prepare(config, tmp_path / "again", seed=1)
    assert len(site.asked) == asked
    assert again.fingerprints == report.fingerprints
    prepare(config.model_copy(update={"refresh": True}), tmp_path / "third", seed=1)
    assert len(site.asked) == asked + 3


def test_robots_are_honoured(site: Site) -> None:
    rules = "User-agent: *\nDisallow: /\n\nUser-agent: tanzim\nDisallow: /private\nAllow: /private/open$\n"
    site.pages["/robots.txt"] = (200, {}, rules.encode())
    for path in ("/private/a", "/private/open", "/free"):
        site.html(path, _html(TEXT))
    site.pages["/moved"] = (302, {"Location": "/private/a"}, b"")
    paths = ["/private/a", "/private/open", "/free", "/moved"]
    rows, _ = _rows(_config(urls=[site.url + path for path in paths]))
    # Expected by hand from RFC 9309: the longest rule wins, of the group that names us.
    assert [getattr(row, "reason", "read") for row in rows] == [
        "robots.txt forbids it", "read", "read", "robots.txt forbids it",
    ]  # fmt: skip
    assert "/private/a" not in site.paths
    assert site.asked[-1][1]["user-agent"].startswith("tanzim/")


@pytest.mark.parametrize(("status", "allowed"), [(404, True), (403, True), (500, False), (429, False)])
def test_robots_that_cannot_be_had(site: Site, status: int, allowed: bool) -> None:
    site.pages["/robots.txt"] = (status, {}, b"")
    site.html("/a", _html(TEXT))
    rows, _ = _rows(_config(urls=f"{site.url}/a"))
    assert ("/a" in site.paths) is allowed
    assert hasattr(rows[0], "value") is allowed


@pytest.mark.parametrize(("asked", "own", "waits"), [(0.3, 0.0, 0.3), (0.3, 2.0, 2.0), (900, 0.0, 60.0)])
def test_delay_between_requests(site: Site, monkeypatch, asked: float, own: float, waits: float) -> None:
    """On a clock of its own: the longer of what the site and the config ask for, a minute at the most."""

    class Clock:
        def __init__(self) -> None:
            self.now = 100.0
            self.slept: list[float] = []

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds

    clock = Clock()
    site.pages["/robots.txt"] = (200, {}, f"User-agent: *\nCrawl-delay: {asked}\n".encode())
    monkeypatch.setattr(robots, "time", clock)
    rules = robots.Robots(LOCAL, Bounds(), own)
    rules.check(f"{site.url}/a")
    clock.now += 0.1
    rules.check(f"{site.url}/b")
    clock.now += 70
    rules.check(f"{site.url}/c")
    assert clock.slept == pytest.approx([waits - 0.1])


def test_links_are_followed_within_the_host_and_the_bound(site: Site) -> None:
    away = "https://elsewhere.example/x"
    site.html("/", _html(TEXT, links=("/a", "b?q=1#part", away, "mailto:x@y.example", "/none", "/data.bin")))
    site.html("/a", _html(TEXT, links=("/c",)))
    site.html("/b?q=1", _html(FARSI))
    site.html("/c", _html(TEXT, links=("/d",)))
    site.html("/about", _html(TEXT))
    site.pages["/data.bin"] = (200, {"Content-Type": "application/zip"}, b"PK")
    rows, known = _rows(_config(urls=f"{site.url}/", depth=1))
    assert [row.about["url"].removeprefix(site.url) for row in rows] == ["/", "/about", "/a", "/b?q=1"]
    assert known["aside"] == {"the server answers 404 Not Found": 1, "the page is no text": 1}
    rows, known = _rows(_config(urls=f"{site.url}/", depth=5, max_pages=3))
    assert len(rows) == 3
    assert known["aside"]["left, as max_pages was reached"] >= 2
    assert not any("elsewhere" in path for path in site.paths)


def test_sitemaps(site: Site) -> None:
    for path in ("/a", "/b", "/c"):
        site.html(path, _html(TEXT, path))
    head = '<?xml version="1.0"?><{} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    index = head.format("sitemapindex") + "".join(
        f"<sitemap><loc>{site.url}/{name}</loc></sitemap>" for name in ("one.xml.gz", "two.txt")
    )
    site.pages["/index.xml"] = (200, {}, f"{index}</sitemapindex>".encode())
    urls = head.format("urlset") + f"<url><loc> {site.url}/a </loc><priority>1</priority></url>"
    urls += f"<url><loc>{site.url}/b</loc></url><url><loc>http://10.0.0.1/x</loc></url></urlset>"
    site.pages["/one.xml.gz"] = (200, {}, gzip.compress(urls.encode()))
    site.pages["/two.txt"] = (200, {}, f"{site.url}/c\n".encode())
    rows, _ = _rows(_config(sitemaps=f"{site.url}/index.xml"))
    assert [row.about["url"].removeprefix(site.url) for row in rows] == ["/a", "/b", "/c"]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    "<urlset><url><loc>&b;</loc></url></urlset>"
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BOMB.encode(), "not XML that can be read"),
        (b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset>&a;</urlset>', "not XML"),
        (b"<html></html>", "not a sitemap"),
        (b"<urlset>", "not XML"),
        (b"hello", "not a sitemap"),
        (gzip.compress(b" " * 60_000_000, mtime=0), "too large"),
        (gzip.compress(b"<urlset/>", mtime=0)[:-9] + b"xxxxxxxxx", "damaged"),
    ],
)
def test_hostile_sitemaps(site: Site, body: bytes, words: str) -> None:
    site.pages["/sitemap.xml"] = (200, {}, body)
    with pytest.raises(DataError, match=words) as caught:
        _rows(_config(sitemaps=f"{site.url}/sitemap.xml"))
    assert caught.value.where == f"{site.url}/sitemap.xml"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
def test_compressed_pages(site: Site, coding: str) -> None:
    body = _html(FARSI).encode("cp1256", "xmlcharrefreplace")
    engine = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "raw deflate": -15}[coding])
    sent = {
        "Content-Type": "text/html; charset=windows-1256",
        "Content-Encoding": coding.removeprefix("raw "),
    }
    site.pages["/a"] = (200, sent, engine.compress(body) + engine.flush())
    rows, _ = _rows(_config(urls=f"{site.url}/a"))
    assert "سرچشمه می‌گیرد" in rows[0].value["text"]


def _drip(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b"<p>")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        return


def _short(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"<p>half")


HTML = {"Content-Type": "text/html"}
GZIP = {**HTML, "Content-Encoding": "gzip"}
HOSTILE = {
    "a gzip bomb": ((200, GZIP, gzip.compress(b"\0" * 300_000_000)), "too large"),
    "a large page": ((200, HTML, b"x" * 300_000), "too large"),
    "bad gzip": ((200, GZIP, b"no gzip at all"), "damaged"),
    "cut gzip": ((200, GZIP, gzip.compress(b"<p>a</p>" * 99)[:-20]), "damaged"),
    "brotli": ((200, {**HTML, "Content-Encoding": "br"}, b"xx"), "in a way that was not asked for"),
    "dripping bytes": (_drip, "takes too long"),
    "cut short": (_short, "ended early"),
    "around in circles": ((302, {"Location": "/x"}, b""), "too many redirects"),
    "to a file": ((302, {"Location": "file:///etc/passwd"}, b""), "not a web address"),
    "to this machine": ((302, {"Location": "http://[::1]:1/"}, b""), "not public"),
    "to the cloud's metadata": ((301, {"Location": "http://169.254.169.254/latest"}, b""), "not public"),
    "a number as host": ((301, {"Location": "http://2852039166/latest"}, b""), "not public"),
    "to a neighbour": ((301, {"Location": "http://127.0.0.2:1/"}, b""), "not public"),
    "deep": ((200, HTML, b"<div>" * 40_000 + b"x"), ""),
    "no such encoding": ((200, {"Content-Type": "text/html; charset=klingon"}, b"\xff<p>x"), "encoding"),
    "empty": ((200, HTML, b""), "no text"),
    "a picture": ((200, {"Content-Type": "image/png"}, b"\x89PNG"), "is no text"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_are_rejected(site: Site, name: str) -> None:
    page, words = HOSTILE[name]
    site.pages["/x"] = page
    seconds = 1 if words == "takes too long" else 60  # a busy machine takes a while for the others, too
    rows, _ = _rows(_config(urls=f"{site.url}/x", timeout_s=seconds, max_page_mb=0.25))
    assert len(rows) == 1
    if words:
        assert words in f"{rows[0].reason} {rows[0].detail}"
    assert not any(path == "/latest" for path in site.paths)


def test_a_private_address_is_refused_unless_listed(site: Site, tmp_path: Path) -> None:
    config = DataConfig.model_validate({"sources": [{"type": "web", "urls": f"{site.url}/a"}]})
    with pytest.raises(DataError, match="not public") as caught:
        prepare(config, tmp_path / "out", seed=1)
    assert "data.allow_hosts: [127.0.0.1]" in str(caught.value)
    assert site.asked == []


# By hand from the registries of RFC 6890, RFC 4291 and RFC 6052.
@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("127.0.0.1", False),
        ("10.1.2.3", False), ("172.31.0.1", False), ("172.32.0.1", True), ("192.168.1.1", False),
        ("169.254.169.254", False), ("0.0.0.0", False), ("100.64.0.1", False), ("224.0.0.1", False),
        ("255.255.255.255", False), ("::1", False), ("::", False), ("fe80::1%eth0", False),
        ("fd00::1", False), ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False), ("ff02::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_that_changes_its_address_gains_nothing(site: Site, monkeypatch) -> None:
    """The address that is checked is the one that is connected to: a second answer of DNS is never asked."""
    port = int(site.url.rpartition(":")[2])
    answers = iter(["93.184.216.34", "127.0.0.1"])
    asked, connected = [], []

    def lookup(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(_: socket.socket, place: tuple[str, int]) -> None:
        connected.append(place[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ConnectionRefusedError):
        Guard().connect("rebind.example", port, 1)
    assert (asked, connected) == (["rebind.example"], ["93.184.216.34"])
    with pytest.raises(NotPublic):
        Guard().connect("rebind.example", port, 1)
    assert connected == ["93.184.216.34"]


def test_what_allow_hosts_takes() -> None:
    assert Guard(("intranet.example",)).allows("Intranet.example.", "10.0.0.1")
    assert not Guard(("intranet.example",)).allows("other.example", "10.0.0.1")
    assert Guard(("10.0.0.0/8",)).allows("any.example", "10.9.9.9")
    assert not Guard(("10.0.0.0/8",)).allows("any.example", "192.168.0.1")
    for wrong in ("http://x.example", "x.example/path", "10.0.0.1/8", "x.example:80", ""):
        with pytest.raises(ValueError, match="allow_hosts"):
            DataConfig.model_validate({"allow_hosts": [wrong]})


def test_urls_are_written_one_way() -> None:
    assert (
        normal("HTTP://Example.COM:80/a b?q=سلام#x") == "http://example.com/a%20b?q=%D8%B3%D9%84%D8%A7%D9%85"
    )
    assert normal("https://مثال.example") == "https://xn--mgbh0fb.example/"
    assert normal("http://[::1]:8080/x%20y") == "http://[::1]:8080/x%20y"
    for wrong in ("ftp://x.example", "http://", "http://x.example:99999/", "javascript:alert(1)"):
        with pytest.raises(Unreachable):
            normal(wrong)


def test_a_header_for_one_host_is_not_sent_to_another(site: Site) -> None:
    with local_site() as other:
        other.html("/b", "there")
        site.pages["/a"] = (302, {"Location": f"{other.url}/b"}, b"")
        with get(f"{site.url}/a", LOCAL, Bounds(), {"Authorization": "Basic secret"}) as answer:
            assert answer.url == f"{other.url}/b"
        assert site.asked[0][1]["authorization"] == "Basic secret"
        assert "authorization" not in other.asked[0][1]


def test_a_crawl_goes_on_where_it_stopped(site: Site, monkeypatch, tmp_path: Path) -> None:
    for n in range(6):
        site.html(f"/{n}", _html(f"{TEXT} {n}", links=(f"/{n + 1}",)))

    def stop(_: Any) -> Any:
        raise KeyboardInterrupt

    config = _config(urls=f"{site.url}/0", depth=9)
    from tanzim.data.ingest import web

    real = web.read_page
    monkeypatch.setattr(web, "read_page", lambda url, *a: stop(url) if url.endswith("/3") else real(url, *a))
    with pytest.raises(KeyboardInterrupt):
        _rows(config)
    (log,) = (tmp_path / "cache" / "sources").glob("*/seen.jsonl")
    with log.open("ab") as stream:
        stream.write(b'{"url": "half a line')
    monkeypatch.setattr(web, "read_page", real)
    before = len(site.asked)
    rows, known = _rows(config)
    assert [row.value["text"].count(TEXT) for row in rows] == [1] * 6
    assert "/0" not in site.paths[before:]
    assert "/3" in site.paths[before:]
    assert known["pages"] == 9  # the six, and three that are not there: /, /about and /6
    assert not log.exists()


def test_settings_that_are_refused() -> None:
    for source, words in (
        ({"urls": []}, "name pages"),
        ({"urls": "ftp://x.example/"}, "should start with http"),
        ({"urls": "https://me:secret@x.example/"}, "password"),
    ):
        with pytest.raises(ValueError, match=words):
            DataConfig.model_validate({"sources": [{"type": "web", **source}]})


def test_a_busy_server_is_asked_again(site: Site) -> None:
    answers = iter([503, 429, 200])

    def page(_: object) -> Any:
        return next(answers), {"Content-Type": "text/html", "Retry-After": "0"}, _html(TEXT).encode()

    site.pages["/a"] = page
    rows, _ = _rows(_config(urls=f"{site.url}/a"))
    assert TEXT in rows[0].value["text"]
    assert site.paths.count("/a") == 3


def test_an_unset_variable_is_named() -> None:
    config = DataConfig.model_validate({"path": "https://me:${TANZIM_NOT_SET}@x.example/a.csv"})
    from tanzim.data.ingest.sources import find

    with pytest.raises(ConfigError, match="TANZIM_NOT_SET is not set"):
        find(config.path)
    assert "me:${TANZIM_NOT_SET}@" in str(config.model_dump())
