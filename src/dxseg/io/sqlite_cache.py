"""What was found out about files, kept on disk so that an interrupted job goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from dxseg.errors import DxsegError
from dxseg.io.remote import RemotePath

_KEYS_AT_ONCE = 500  # SQLite takes at least 999 parameters a statement
_ROWS_A_COMMIT = 256
_NO_STORE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class SqliteCache:
    """Bytes by key in one SQLite file.

    A kill loses at most the last few hundred records. A file that is no readable store is made
    anew: it holds nothing that cannot be found out again. A store that the system does not let us
    write is left as it is: every method then raises `DxsegError`.
    """

    def __init__(self, path: Path | None) -> None:
        """Open a store.

        Args:
            path: Its file, made if absent; None keeps the records in a temporary file that
                nobody else sees.
        """
        self._pending, self._path = 0, path
        with self._told():
            try:
                self._connection = _open(path)
            except sqlite3.DatabaseError as error:
                if path is None or error.sqlite_errorcode not in _NO_STORE:
                    raise
                path.unlink()
                self._connection = _open(path)

    def __enter__(self) -> SqliteCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep what was put, also after an error, and close."""
        try:
            # A full disk is told once, by what came first.
            with self._told() if error is None else suppress(sqlite3.DatabaseError):
                self._connection.commit()
        finally:
            self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite complains of into an error that names the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in _NO_STORE:
                remedy = "it is damaged; remove it, it can be made again"
            else:
                remedy = "make room, or see to it that the folder can be written to"
            raise DxsegError(f"{self._path or 'a temporary file'}: {error}; {remedy}") from error

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Give the positions of those keys that have no record, in order."""
        return [place for place, record in enumerate(self._known(keys)) if not record]

    def put(self, key: str, record: bytes) -> None:
        """Keep a record, replacing that of the same key."""
        with self._told():
            self._connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (key, record))
            self._pending += 1
            if self._pending >= _ROWS_A_COMMIT:
                self._connection.commit()
                self._pending = 0

    def read(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Yield the records of some keys in their order, a block in memory at a time.

        Raises:
            KeyError: A key has no record.
        """
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            block = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(block))  # all that is pasted: keys are bound
            query = f"SELECT key, record FROM records WHERE key IN ({marks})"  # nosec
            with self._told():
                found = dict(self._connection.execute(query, block))
            for key in block:
                yield found[key]

    def _known(self, keys: Sequence[str]) -> Iterator[bool]:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            block = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(block))  # all that is pasted: keys are bound
            query = f"SELECT key FROM records WHERE key IN ({marks})"  # nosec
            with self._told():
                found = {key for (key,) in self._connection.execute(query, block)}
            for key in block:
                yield key in found


def file_key(path: Path, *parts: object) -> str:
    """Name the state of a file: where it is, its size and when it was written.

    Args:
        path: The file.
        parts: What else the record depends on.

    Raises:
        OSError: The file cannot be looked at.
    """
    if isinstance(path, RemotePath):
        return "|".join(map(str, (*parts, path.version(), path)))
    status = path.stat()
    # Bytes of a name that are no text are kept apart, not lost.
    name = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "|".join(map(str, (*parts, status.st_size, status.st_mtime_ns, name)))


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    # An empty name is a database on disk that is removed when it is closed.
    connection = sqlite3.connect("" if path is None else path, timeout=60)
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, record BLOB NOT NULL)"
            )
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
