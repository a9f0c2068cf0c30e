"""Where the adapter repository keeps its bytes: a local folder, or anything fsspec reaches by URL.

A store promises three things, on which the repository builds everything else: a key is written whole or
not at all, `Store.create` succeeds for one of any number of writers, and what was written is read back
by all. Locally the first two come from a temporary file and a hard link; on S3 from single objects
and the condition ``If-None-Match: *``.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tanzim.core.errors import RunError
from tanzim.core.files import cache_folder, new_file, new_folder, sha256, sync_folder
from tanzim.core.optional import need

_URL = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3"}


class Store(Protocol):
    """Bytes under keys such as ``log/00000001.json``, and folders of files."""

    url: str

    def read(self, key: str) -> bytes | None:
        """Return what stands at ``key``, None if nothing does."""

    def create(self, key: str, data: bytes) -> bool:
        """Write ``key`` if nothing stands there; tell whether it was this call that wrote it."""

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key``, whatever stood there."""

    def put_folder(self, key: str, folder: Path, files: Mapping[str, str]) -> None:
        """Copy the files (relative path → SHA-256) of ``folder`` under ``key``, which is new."""

    def get_folder(self, key: str, content: str, files: Mapping[str, str]) -> Path:
        """Return a local folder with these files (relative path → SHA-256); ``content`` names them all."""

    def remove_folder(self, key: str) -> None:
        """Remove everything under ``key``."""


def open_store(url: str) -> Store:
    """Open the store at ``url``: a folder's path, or a URL such as ``s3://bucket/prefix``.

    Raises:
        MissingExtra: the package that speaks this protocol is not installed.
        RunError: there is no such protocol, or the URL is incomplete.

    """
    found = _URL.match(url)
    if found is None or found[1].lower() == "file":
        return LocalStore(Path(url[len(found[0]) :] if found else url).expanduser())
    return RemoteStore(url)


class LocalStore:
    """A folder on this machine, or on a shared disk that knows hard links."""

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._root = root

    def read(self, key: str) -> bytes | None:
        """Return what stands at ``key``, None if nothing does."""
        with _reached(self.url):
            try:
                return (self._root / key).read_bytes()
            except FileNotFoundError:
                return None

    def create(self, key: str, data: bytes) -> bool:
        """Write ``key`` if nothing stands there: a link, unlike a rename, never replaces."""
        with _reached(self.url):
            return self._create(self._root / key, data)

    def _create(self, path: Path, data: bytes) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(stream.fileno(), 0o644)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            Path(temporary).unlink(missing_ok=True)
        sync_folder(path.parent)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key``, whatever stood there."""
        with _reached(self.url), new_file(self._root / key) as stream:
            stream.write(data)

    def put_folder(self, key: str, folder: Path, files: Mapping[str, str]) -> None:
        """Copy the files of ``folder`` under ``key``, which is new.

        Raises:
            RunError: a file changed while it was copied.

        """
        with _reached(self.url), new_folder(self._root / key) as temporary:
            for name in files:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, temporary / name)
            _check(temporary, files, str(folder))

    def get_folder(self, key: str, content: str, files: Mapping[str, str]) -> Path:
        """Return the folder itself; that all files are there is checked, their bytes are not.

        Raises:
            RunError: files are missing.

        """
        folder = self._root / key
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise RunError(
                f"the repository has lost {len(missing)} of {len(files)} files, such as {missing[0]}",
                where=str(folder),
                fix="add the adapter again from its run",
            )
        return folder

    def remove_folder(self, key: str) -> None:
        """Remove everything under ``key``; it is renamed first, so that nobody sees half of it."""
        gone = (self._root / key).with_name(f".{Path(key).name}.old")
        with _reached(self.url):
            try:
                os.replace(self._root / key, gone)
            except FileNotFoundError:
                return
            shutil.rmtree(gone)


class RemoteStore:
    """A prefix on S3, or on any other file system fsspec knows by URL.

    Secrets and the endpoint come from the environment, as the protocol's own client reads them: for S3
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, or ``~/.aws``.
    """

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0].lower()
        extra = _EXTRAS.get(scheme, "s3")
        fsspec = need("fsspec", extra)
        if scheme in _EXTRAS:
            need("s3fs", extra)
        try:
            # Listings are never kept: another process may have written a moment ago.
            fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise RunError(f"this repository cannot be opened: {error}", where=_public(url)) from error
        self.url = _public(url)
        self._fs: Any = fs
        self._root = path.rstrip("/")
        if not self._root:
            raise RunError("this URL names no bucket", where=self.url, fix="write s3://bucket/prefix")
        self._trusted = False

    def read(self, key: str) -> bytes | None:
        """Return what stands at ``key``, None if nothing does."""
        with _reached(self.url):
            try:
                data: bytes = self._fs.cat_file(self._at(key))
            except FileNotFoundError:
                return None
            return data

    def create(self, key: str, data: bytes) -> bool:
        """Write ``key`` if nothing stands there, by a conditional write.

        Raises:
            RunError: this storage would overwrite what another process wrote.

        """
        if not self._trusted:
            self._try_condition()
        return self._create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key``, whatever stood there."""
        with _reached(self.url):
            self._fs.pipe_file(self._at(key), data)

    def put_folder(self, key: str, folder: Path, files: Mapping[str, str]) -> None:
        """Copy the files of ``folder`` under ``key``, which is new and which nothing names yet.

        Raises:
            RunError: a file changed while it was copied.

        """
        with _reached(self.url):
            for name in files:
                self._fs.put_file(str(folder / name), self._at(f"{key}/{name}"))
        _check(folder, files, str(folder))

    def get_folder(self, key: str, content: str, files: Mapping[str, str]) -> Path:
        """Return this machine's copy, named by its content; it is fetched and checked once.

        Raises:
            RunError: files are missing there, or are not those that were stored.

        """
        target = cache_folder() / "adapters" / content
        if all((target / name).is_file() for name in files):
            return target
        fresh = target.with_name(f".{content}.{uuid.uuid4().hex}")
        with _reached(self.url), new_folder(fresh) as temporary:
            for name in files:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._fs.get_file(self._at(f"{key}/{name}"), str(temporary / name))
                except FileNotFoundError:
                    raise RunError(
                        f"the repository has lost the file {name}",
                        where=f"{self.url}/{key}",
                        fix="add the adapter again from its run",
                    ) from None
            _check(temporary, files, f"{self.url}/{key}")
        return _settle(fresh, target, files)

    def remove_folder(self, key: str) -> None:
        """Remove everything under ``key``."""
        with _reached(self.url):
            try:
                self._fs.rm(self._at(key), recursive=True)
            except FileNotFoundError:
                return

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _create(self, key: str, data: bytes) -> bool:
        with _reached(self.url):
            try:
                self._fs.pipe_file(self._at(key), data, mode="create")
            except FileExistsError:
                return False
            except OSError:
                # Two writers at the same moment: S3 may answer 409 to one, or a retried request meets
                # its own first attempt. Whether the key stands now tells which it was.
                if self.read(key) is None:
                    raise
                return False
        return True

    def _try_condition(self) -> None:
        """Make sure that a second `create` of one key fails: without that, writers could lose events."""
        note = b'{"tanzim": "adapter repository"}\n'
        self._create("repository.json", note)
        if self._create("repository.json", note):
            raise RunError(
                "this storage ignores the condition If-None-Match, so two writers could overwrite "
                "each other's entries",
                where=self.url,
                fix="use AWS S3, MinIO, Ceph or another server with conditional writes, or a local folder",
            )
        self._trusted = True


@contextmanager
def _reached(where: str) -> Iterator[None]:
    """Say in one line why the storage cannot be used: no permission, no space, no bucket, no network."""
    try:
        yield
    except _storage_errors() as error:
        raise RunError(
            f"the repository cannot be used: {type(error).__name__}: {error}",
            where=where,
            fix="check the path or URL, the free space, the network, and the credentials in the environment",
        ) from error


def _storage_errors() -> tuple[type[Exception], ...]:
    """Return what the disk, the network, and S3's own client raise."""
    if "botocore" not in sys.modules:
        return (OSError,)
    exceptions: Any = importlib.import_module("botocore.exceptions")
    return OSError, exceptions.BotoCoreError, exceptions.ClientError


def _public(url: str) -> str:
    """Return a URL without user name and password, for messages."""
    return re.sub(r"://[^/@]*@", "://", url)


def _check(folder: Path, files: Mapping[str, str], where: str) -> None:
    """Refuse files that are not those whose hashes are given."""
    for name, digest in files.items():
        if sha256(folder / name) != digest:
            raise RunError(f"the file {name} is not the one that was recorded", where=where, fix="try again")


def _settle(fresh: Path, target: Path, files: Mapping[str, str]) -> Path:
    """Give a checked folder its name, unless another process was quicker."""
    try:
        os.rename(fresh, target)
    except OSError:
        if not all((target / name).is_file() for name in files):
            shutil.rmtree(target)
            os.rename(fresh, target)
        else:
            shutil.rmtree(fresh)
    return target
