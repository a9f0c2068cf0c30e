"""GET over HTTP: addresses checked before each connection, everything bounded, nothing unzipped unasked."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from tanzim import __version__
from tanzim.core.errors import DataError
from tanzim.data.ingest.guard import Guard, NotPublic

AGENT = f"tanzim/{__version__}"
_CHUNK = 1 << 16
_MOVED = (301, 302, 303, 307, 308)
_UNZIPPED = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # window bits of zlib; deflate is tried raw, too


class Unreachable(DataError):
    """A URL cannot be had; ``reason`` is the same for every URL that has this fault."""

    def __init__(self, url: str, reason: str, detail: str = "", fix: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason, where=url, fix=fix)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may cost.

    Args:
        seconds: without an answer; with ``whole``, for all of it.
        redirects: followed at the most.
        whole: whether ``seconds`` bound the time until the last byte, not only the next one.

    """

    seconds: float = 30.0
    redirects: int = 5
    whole: bool = False


@dataclass(slots=True)
class Answer:
    """An open answer.

    Args:
        url: after all redirects.
        status: of HTTP.
        headers: names in lower case.

    """

    url: str
    status: int
    headers: Mapping[str, str]
    _response: http.client.HTTPResponse
    _watch: _Watch = field(repr=False)

    @property
    def size(self) -> int | None:
        """Bytes that the server says will come."""
        length = self.headers.get("content-length", "")
        return int(length) if length.isdecimal() and len(length) < 19 else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes as they come.

        Raises:
            Unreachable: the connection breaks, or takes too long.

        """
        try:
            while chunk := self._response.read1(_CHUNK):
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise self._watch.fault(self.url, error) from None
        if self._watch.rang:
            raise self._watch.fault(self.url, TimeoutError())
        if self._response.length:
            raise Unreachable(
                self.url, "the connection ended early", f"{self._response.length} bytes missing"
            )

    def body(self, limit: int) -> bytes:
        """Return all bytes, unzipped, if these are no more than ``limit``.

        Raises:
            Unreachable: there are more, before or after unzipping, or they are damaged.

        """
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity", *_UNZIPPED):
            raise Unreachable(self.url, "the page is compressed in a way that was not asked for", coding)
        parts, size = [], 0
        for part in self.chunks() if coding in ("", "identity") else _unzip(self.chunks(), coding, self.url):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise Unreachable(self.url, "the page is too large", f"above {limit / 1e6:g} MB")
        return b"".join(parts)


def _unzip(chunks: Iterator[bytes], coding: str, url: str) -> Iterator[bytes]:
    """Unzip at most a chunk at a time, whatever the data promise to become."""
    engine = zlib.decompressobj(_UNZIPPED[coding])
    first = True
    try:
        for chunk in chunks:
            if first and coding == "deflate" and (chunk[0] & 0x0F != 8 or chunk[0] >> 4 > 7):
                engine = zlib.decompressobj(-15)  # deflate without zlib's wrapping, as some servers send it
            first = False
            waiting = chunk
            while waiting and not engine.eof:
                yield engine.decompress(waiting, _CHUNK)
                waiting = engine.unconsumed_tail
    except zlib.error as error:
        raise Unreachable(url, "the compressed page is damaged", str(error)) from None
    if not engine.eof and not first:
        raise Unreachable(url, "the compressed page is damaged", "it ends early")


class _Watch:
    """Breaks a connection off when its time is over: a server that drips bytes holds nobody up."""

    def __init__(self, bounds: Bounds) -> None:
        self._seconds, self._whole = bounds.seconds, bounds.whole
        self._left, self._begun = bounds.seconds, 0.0
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self.rang = False

    def begin(self) -> None:
        """Let the time run."""
        if self._whole:
            self._begun = time.monotonic()
            self._timer = threading.Timer(self._left, self._ring)
            self._timer.daemon = True
            self._timer.start()

    def over(self, connection: socket.socket) -> None:
        self._socket = connection

    def _ring(self) -> None:
        self.rang = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                return

    def stop(self) -> None:
        """Let the time stand still."""
        if self._timer is not None:
            self._timer.cancel()
            self._left = max(0.0, self._left - (time.monotonic() - self._begun))
            self._timer = None

    def fault(self, url: str, error: Exception) -> Unreachable:
        """Say what became of a connection."""
        if isinstance(error, NotPublic):
            return Unreachable(
                url,
                "the address is not public",
                str(error),
                fix=f"if this is meant, list it: data.allow_hosts: [{error.host}]",
            )
        if self.rang or isinstance(error, TimeoutError):
            return Unreachable(url, "the server takes too long", f"more than {self._seconds:g} s")
        if isinstance(error, socket.gaierror):
            return Unreachable(
                url, "there is no such host", str(error.strerror or error), "check the address"
            )
        if isinstance(error, ssl.SSLError):
            return Unreachable(url, "the connection is not safe", str(error.reason or error))
        if isinstance(error, http.client.HTTPException):
            return Unreachable(url, "the answer is not HTTP", f"{type(error).__name__} {error}".strip())
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(url, "the server cannot be reached", text)


def normal(url: str, base: str = "") -> str:
    """Return a URL without its fragment, and with what is not ASCII in it percent-encoded.

    Args:
        url: of http or https.
        base: what it is relative to.

    Raises:
        Unreachable: it is no HTTP URL.

    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        port = parts.port
        host = parts.hostname or ""
        if ":" not in host:  # but for IPv6
            host = host.encode("idna").decode()
            host.encode("idna")  # some signs become dots, with nothing between them
    except (ValueError, UnicodeError) as error:
        raise Unreachable(url, "this is not a web address", str(error)) from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https") or not host:
        raise Unreachable(url, "this is not a web address", "it should start with http:// or https://")
    place = f"[{host}]" if ":" in host else host
    if port and port != {"http": 80, "https": 443}[scheme]:
        place += f":{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return urlunsplit((scheme, place, path, query, ""))


@contextmanager
def get(
    url: str,
    guard: Guard,
    bounds: Bounds,
    headers: Mapping[str, str] | None = None,
    check: Callable[[str], None] | None = None,
) -> Iterator[Answer]:
    """Open a URL, following redirects, each checked as the first address was.

    Args:
        url: http or https; a user name and password in it are sent as basic authentication only by the
            caller's own header.
        guard: says which addresses may be connected to.
        bounds: what it may cost.
        headers: to send along to the first host; not to others that it sends us on to.
        check: asked before each request, of a redirect too; it raises what it does not want. Its time does
            not count.

    Raises:
        Unreachable: the address is refused, or does not answer as it should. A status such as 404 is an
            answer like others.

    """
    watch = _Watch(bounds)
    connection: http.client.HTTPConnection | None = None
    here, origin = normal(url), urlsplit(normal(url)).netloc
    try:
        for _ in range(bounds.redirects + 1):
            if check is not None:
                check(here)
            watch.begin()
            own = headers if urlsplit(here).netloc == origin else None
            connection, response = _request(here, guard, bounds, watch, own or {})
            target = response.headers.get("location")
            if response.status not in _MOVED or not target:
                known = {name.lower(): value for name, value in response.headers.items()}
                yield Answer(here, response.status, known, response, watch)
                return
            connection.close()
            watch.stop()
            here = normal(target, here)
        raise Unreachable(url, "there are too many redirects", f"more than {bounds.redirects}")
    finally:
        watch.stop()
        if connection is not None:
            connection.close()


def _request(
    url: str, guard: Guard, bounds: Bounds, watch: _Watch, headers: Mapping[str, str]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    assert parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(parts.hostname, port)
    try:
        raw = guard.connect(parts.hostname, port, bounds.seconds)
        watch.over(raw)
        connection.sock = raw
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)
            watch.over(connection.sock)
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Connection": "close", **headers}
        path = urlunsplit(("", "", parts.path, parts.query, ""))
        connection.request("GET", path, headers={"Host": parts.netloc, **sent})
        return connection, connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        if connection.sock is not None:
            connection.close()
        raise watch.fault(url, error) from None


class Stream(io.RawIOBase):
    """The bytes of a URL as a file that is read once, from its beginning to its end."""

    def __init__(self, url: str, guard: Guard, bounds: Bounds, headers: Mapping[str, str]) -> None:
        self._open = get(url, guard, bounds, headers)
        answer = self._open.__enter__()
        if answer.status != 200:
            self._open.__exit__(None, None, None)
            raise refused(answer)
        self._chunks = answer.chunks()
        self._left = b""

    def readable(self) -> bool:
        """It is for reading alone."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with what comes next."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._left:
            self._left = next(self._chunks, b"")
        taken = self._left[: len(view)]
        view[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)

    def close(self) -> None:
        """Hang up."""
        if not self.closed:
            self._open.__exit__(None, None, None)
        super().close()


def refused(answer: Answer) -> Unreachable:
    """Say that a server answered with an error."""
    words = http.client.responses.get(answer.status, "")
    return Unreachable(answer.url, f"the server answers {answer.status} {words}".strip())
