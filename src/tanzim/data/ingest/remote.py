"""Files that are not on this machine: on S3 and other storages through fsspec, or behind a web address."""

from __future__ import annotations

import glob
import importlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.data.ingest.client import Bounds, Stream, get, refused
from tanzim.data.ingest.guard import Guard
from tanzim.data.ingest.secrets import Secrets

_BLOCK = 4 << 20  # bytes asked for at a time, of storages that can be read anywhere
_BOUNDS = Bounds(seconds=60.0, redirects=5)
_CLIENTS = {"s3": "s3fs", "s3a": "s3fs"}
# What storages call the version of a file, the surest first.
_VERSIONS = (
    "ETag", "etag", "md5Hash", "content_md5", "crc32c", "generation", "checksum", "LastModified",
    "last_modified", "updated", "mtime", "modified", "created",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file elsewhere, read as a stream; it stands where a `Path` does.

    Args:
        url: as the config has it, with ``${NAME}`` for what is secret.
        path: its name within the storage; the same as ``url`` on the web.
        shown: how messages and provenance call it.
        size: bytes; None where the server does not say.
        version: what changes with its content: an ETag, or when it was written; None where neither is known.
        guard: says which addresses may be connected to.
        seen: when it was found; without a version, what was read at another time is not trusted.

    """

    url: str
    path: str
    shown: str
    size: int | None
    version: str | None
    guard: Guard = field(default_factory=Guard)
    seen: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def __str__(self) -> str:
        return self.shown

    @property
    def name(self) -> str:
        """The last part of its path."""
        path = urlsplit(self.path).path if _is_web(self.path) else self.path
        return unquote(path.rstrip("/").rpartition("/")[2])

    @property
    def suffix(self) -> str:
        """The end of its name, such as .csv."""
        return Path(self.name).suffix

    @property
    def fingerprint(self) -> str:
        """What a result that was read from it hangs on."""
        return _fingerprint({"ETag": self.version or self.seen, "size": self.size})

    def stat(self) -> SimpleNamespace:
        """Return its size, as a `Path` does (0 where it is not known)."""
        return SimpleNamespace(st_size=self.size or 0)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open it for reading, from its beginning; files of a storage can be read anywhere.

        Raises:
            DataError: it cannot be had.

        """
        assert mode == "rb"
        secrets = Secrets(self.shown)
        if _is_web(self.path):
            address, headers = _address(self.path, secrets)
            return io.BufferedReader(Stream(address, self.guard, _BOUNDS, headers), _BLOCK)
        with reached(self.shown, secrets):
            fs, _ = _storage(self.url, secrets)
            stream = fs.open(self.path, "rb", block_size=_BLOCK, cache_type="readahead")
            return io.BufferedReader(_Told(stream, self.shown, secrets), 1 << 20)

    def unchanged(self) -> bool:
        """Tell whether it still is what it was when it was found, as far as the storage says."""
        secrets = Secrets(self.shown)
        if self.version is None:
            return True
        if _is_web(self.path):
            return _on_the_web(self.url, self.guard, secrets).fingerprint == self.fingerprint
        with reached(self.shown, secrets):
            fs, _ = _storage(self.url, secrets)
            # Some storages say in a listing what they do not say of the file alone, and the other way round.
            if _fingerprint(fs.info(self.path)) == self.fingerprint:
                return True
            beside = fs.ls(fs._parent(self.path), detail=True)
            return any(one["name"] == self.path and _fingerprint(one) == self.fingerprint for one in beside)


class _Told(io.RawIOBase):
    """A file of a storage, whose faults are told in one line."""

    def __init__(self, stream: Any, shown: str, secrets: Secrets) -> None:  # noqa: ANN401 - fsspec's file
        self._stream, self._shown, self._secrets = stream, shown, secrets

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        with reached(self._shown, self._secrets):
            return int(self._stream.readinto(buffer))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


AnyFile = Path | RemoteFile


@contextmanager
def on_disk(file: AnyFile) -> Iterator[Path]:
    """Yield a file as one of this machine, for readers that need all of it; a copy goes afterwards."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="tanzim-") as folder:
        copy = Path(folder) / (Path(file.name).name or "file")
        with file.open() as stream, copy.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
        yield copy


def is_remote(name: str) -> bool:
    """Tell a URL from the name of a local file."""
    scheme, mark, _ = name.partition("://")
    return bool(mark) and scheme.replace("+", "").replace("-", "").isalnum()


def _is_web(url: str) -> bool:
    return url.partition("://")[0].lower() in ("http", "https")


def _address(url: str, secrets: Secrets) -> tuple[str, dict[str, str]]:
    """Return a web address ready to be asked for, and a header for the user name and password in it."""
    parts = urlsplit(secrets.fill(url, lambda value: quote(value, safe="")))
    if not parts.username:
        return parts.geturl(), {}
    import base64

    known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    coded = base64.b64encode(known.encode()).decode()
    secrets.hide_also(coded)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), {
        "Authorization": f"Basic {coded}"
    }


def _storage(url: str, secrets: Secrets) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path within it."""
    scheme = url.partition("://")[0].lower()
    if "::" in url:
        raise ConfigError("a chain of URLs (::) is not read", where=url, fix="name the file itself")
    fsspec = need("fsspec", "s3")
    if client := _CLIENTS.get(scheme):
        need(client, "s3")
    try:
        # Listings are never kept: a file may have been written a moment ago.
        fs, path = fsspec.core.url_to_fs(secrets.fill(url), use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"there is no way to read {scheme}:// here: {secrets.hidden(str(error))}",
            where=url,
            fix=f"check the URL, or install what fsspec needs for {scheme}://",
        ) from None
    return fs, path


def find_remote(url: str, guard: Guard) -> list[RemoteFile]:
    """Return the files behind a URL: one file, a folder, or a pattern.

    Args:
        url: such as s3://bucket/folder/*.jsonl.gz or https://host/file.csv. User names and passwords come
            from the environment, as the client of the storage reads them (for S3 ``AWS_ACCESS_KEY_ID``,
            ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``), or as ``${NAME}`` in the URL.
        guard: says which web addresses may be connected to.

    Raises:
        DataError: there is no such file, or the storage cannot be reached.
        ConfigError: nothing reads URLs of this kind, or a variable is not set.

    """
    secrets = Secrets(url)
    if _is_web(url):
        return [_on_the_web(url, guard, secrets)]
    with reached(url, secrets):
        fs, path = _storage(url, secrets)
        if glob.has_magic(path):
            found = fs.glob(path, detail=True)
        elif fs.isdir(path):
            found = fs.find(path, detail=True)
        else:
            found = {path: fs.info(path)}
        return [
            RemoteFile(url, name, _shown(url, name), info.get("size"), _version(info), guard)
            for name, info in sorted(found.items())
            if info.get("type", "file") == "file"
        ]


def _on_the_web(url: str, guard: Guard, secrets: Secrets) -> RemoteFile:
    address, headers = _address(url, secrets)
    with get(address, guard, _BOUNDS, headers) as answer:
        if answer.status != 200:
            raise refused(answer)
        version = answer.headers.get("etag") or answer.headers.get("last-modified")
        return RemoteFile(url, url, url, answer.size, version, guard)


def _version(info: Json) -> str | None:
    return next((str(info[key]) for key in _VERSIONS if info.get(key) not in (None, "", 0)), None)


def _fingerprint(info: Json) -> str:
    return f"{_version(info)} {info.get('size')}"


def _shown(url: str, path: str) -> str:
    """Return the URL of a file of the same storage as ``url``."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("/")[0]
    rooted = path if path.startswith("/") else f"/{path}"
    # In object stores the bucket is the first part of the path; elsewhere the host is not part of it.
    return f"{scheme}:/{rooted}" if rooted.startswith(f"/{place}/") else f"{scheme}://{place}{rooted}"


@contextmanager
def reached(where: str, secrets: Secrets) -> Iterator[None]:
    """Say in one line why a storage cannot be read: no such file, no permission, no network."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            "there is no such file or folder", where=where, fix="check the URL, and the bucket's name"
        ) from None
    except _storage_errors() as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"the storage cannot be read: {secrets.hidden(said)[:300]}",
            where=where,
            fix="check the URL, the network, and the credentials in the environment",
        ) from None


def _storage_errors() -> tuple[type[Exception], ...]:
    """Return what the network and the clients of storages raise."""
    found: list[type[Exception]] = [OSError, TimeoutError]
    for module, names in (
        ("botocore.exceptions", ("BotoCoreError", "ClientError")),
        ("aiohttp", ("ClientError",)),
    ):
        if module.partition(".")[0] in sys.modules:
            loaded = importlib.import_module(module)
            found += [getattr(loaded, name) for name in names]
    return tuple(found)
