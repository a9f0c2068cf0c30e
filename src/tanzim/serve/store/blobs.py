"""Where the bytes of files lie: a folder, or a bucket on S3."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any, Protocol, cast

from tanzim.core.errors import ConfigError
from tanzim.core.files import new_file
from tanzim.core.optional import need


class Blobs(Protocol):
    """Bytes under keys; a key is written whole or not at all, and never anew."""

    def put(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` under ``key``."""

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading.

        Raises:
            FileNotFoundError: nothing does.

        """

    def delete(self, key: str) -> None:
        """Remove ``key``, if it is there."""


def open_blobs(place: str) -> Blobs:
    """Open the blobs at a folder's path, or at a URL such as ``s3://bucket/prefix``.

    Raises:
        ConfigError: the place cannot be used.
        MissingExtra: the package for S3 is not installed.

    """
    if "://" not in place:
        return FolderBlobs(Path(place))
    if not place.startswith("s3://"):
        raise ConfigError(
            f"files cannot be kept at '{place}'", where="serve.files", fix="a folder, or s3://bucket/prefix"
        )
    return S3Blobs(place)


class FolderBlobs:
    """Files in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` under ``key``; it is on disk when this returns."""
        with path.open("rb") as source, new_file(self._root / key) as out:
            shutil.copyfileobj(source, out, 1 << 20)

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading."""
        return (self._root / key).open("rb")

    def delete(self, key: str) -> None:
        """Remove ``key``, if it is there."""
        (self._root / key).unlink(missing_ok=True)


class S3Blobs:
    """Objects of a bucket; addresses and keys come from the environment, as everywhere (AWS_…)."""

    def __init__(self, url: str) -> None:
        self._root = url.rstrip("/")
        self._fs: Any = need("s3fs", "s3").S3FileSystem()

    def put(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` under ``key``."""
        self._fs.put_file(str(path), f"{self._root}/{key}")

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading."""
        return cast(IO[bytes], self._fs.open(f"{self._root}/{key}", "rb"))

    def delete(self, key: str) -> None:
        """Remove ``key``, if it is there."""
        try:
            self._fs.rm_file(f"{self._root}/{key}")
        except FileNotFoundError:
            return
