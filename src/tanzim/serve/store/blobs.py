"""Where the bytes of files lie: a folder, or a bucket on S3."""

from __future__ import annotations

import importlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast

from sqlalchemy import Column, Engine, select

from tanzim.core.errors import ConfigError, TanzimError
from tanzim.core.files import new_file, sync_folder
from tanzim.core.optional import need


class BlobsAwayError(TanzimError):
    """The place of the bytes does not answer, or not as it should."""


class Blobs(Protocol):
    """Bytes under keys; a key is written whole or not at all, and never anew."""

    def put(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` under ``key``."""

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading.

        Raises:
            FileNotFoundError: nothing does.
            BlobsAwayError: the place is away, as it may be in every other call and when the stream is read.

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


class Marked:
    """Blobs that know which of them were under way when somebody pulled the plug.

    Bytes are written before their row, and removed after it. An empty file in a folder of this server stands
    for each key between the two; what it still stands for after some time is settled by `sweep`. Nothing else
    in the place of the blobs is looked at, since it may be another server's.

    Args:
        blobs: where the bytes are.
        folder: of the marks.

    """

    def __init__(self, blobs: Blobs, folder: Path) -> None:
        self._blobs, self._folder = blobs, folder

    def put(self, key: str, path: Path) -> None:
        """Mark ``key``, and copy the file at ``path`` under it."""
        self.mark(key)
        self._blobs.put(key, path)

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading."""
        return self._blobs.open(key)

    def delete(self, key: str) -> None:
        """Remove ``key``, if it is there, and its mark."""
        self._blobs.delete(key)
        self.settle(key)

    def mark(self, key: str) -> None:
        """Note that the row of ``key`` is about to be written or removed."""
        mark = self._folder / key
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def settle(self, key: str) -> None:
        """Note that ``key`` has its row."""
        (self._folder / key).unlink(missing_ok=True)

    def sweep(self, engine: Engine, known: Column[str], prefix: str, before: float) -> int:
        """Settle the keys that were marked before ``before``: those without a row are removed.

        Args:
            engine: of the database.
            known: the column that names those to be kept.
            prefix: of the keys.
            before: in seconds since 1970.

        Returns:
            How many were removed.

        """
        folder, gone = self._folder / prefix, 0
        for mark in list(folder.iterdir()) if folder.is_dir() else ():
            with suppress(FileNotFoundError):  # it was settled meanwhile
                if mark.stat().st_mtime >= before:
                    continue
            with engine.begin() as connection:
                row = connection.scalar(select(known).where(known == mark.name))
            if row is None:
                self.delete(prefix + mark.name)
                gone += 1
            else:
                self.settle(prefix + mark.name)
        return gone


class FolderBlobs:
    """Files in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` under ``key``; it is on disk when this returns."""
        folder = (self._root / key).parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        with path.open("rb") as source, new_file(self._root / key) as out:
            shutil.copyfileobj(source, out, 1 << 20)

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading."""
        return (self._root / key).open("rb")

    def delete(self, key: str) -> None:
        """Remove ``key``, if it is there, and what a kill left of its making."""
        path = self._root / key
        path.unlink(missing_ok=True)
        for half in path.parent.glob(f".{path.name}.*"):
            half.unlink(missing_ok=True)


class S3Blobs:
    """Objects of a bucket; addresses and keys come from the environment, as everywhere (AWS_…)."""

    def __init__(self, url: str) -> None:
        self._root = url.rstrip("/")
        s3fs: Any = need("s3fs", "s3")
        self._fs: Any = s3fs.S3FileSystem()
        botocore: Any = importlib.import_module("botocore.exceptions")
        # s3fs hands on what it has tried again in vain, whichever library's it is.
        faults = (OSError, botocore.BotoCoreError, botocore.ClientError, *s3fs.core.S3_RETRYABLE_ERRORS)
        self._faults: tuple[type[Exception], ...] = faults

    def put(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` under ``key``."""
        with self.reached():
            self._fs.put_file(str(path), f"{self._root}/{key}")

    def open(self, key: str) -> IO[bytes]:
        """Open what stands at ``key`` for reading."""
        with self.reached():
            return cast(IO[bytes], _Stream(self, self._fs.open(f"{self._root}/{key}", "rb")))

    def delete(self, key: str) -> None:
        """Remove ``key``, if it is there."""
        with suppress(FileNotFoundError), self.reached():
            self._fs.rm_file(f"{self._root}/{key}")

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Let what comes of a storage that is away be raised as `BlobsAwayError`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except self._faults as error:
            raise BlobsAwayError(
                f"the storage of the files cannot be used: {type(error).__name__}: {error}",
                where=f"serve.files: {self._root}",
                fix="check that it is running, its address, and the credentials in the environment",
            ) from error


class _Stream(io.RawIOBase):
    """An object that is being read."""

    def __init__(self, blobs: S3Blobs, stream: IO[bytes]) -> None:
        self._blobs, self._stream = blobs, stream

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever holds bytes
        """Read into ``buffer``; return how many bytes."""
        with self._blobs.reached():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
        super().close()
