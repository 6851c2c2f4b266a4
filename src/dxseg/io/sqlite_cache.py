"""A key-value cache on disk, so that an interrupted job can continue.

It is our own because it needs three things at once: many reads by key in a given order within
bounded memory, records that survive a kill, and errors that name the file. SQLite does the work;
pickle, which caching libraries such as diskcache use, is not allowed here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from dxseg.errors import DxsegError
from dxseg.io.remote import RemotePath

_KEYS_AT_ONCE = 500  # SQLite takes at least 999 parameters per statement
_ROWS_PER_COMMIT = 256
_CORRUPT_CODES = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class SqliteCache:
    """Bytes by key in one SQLite file.

    A kill loses at most the last few hundred records. A file that is no readable cache is replaced:
    its records can be computed again. Where the file cannot be written it is left as it is, and
    every method raises `DxsegError`.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the cache.

        Args:
            path: Its file, created if absent. None: a private temporary file.
        """
        self._pending, self._path = 0, path
        with self._translate_errors():
            try:
                self._connection = _open(path)
            except sqlite3.DatabaseError as error:
                if path is None or error.sqlite_errorcode not in _CORRUPT_CODES:
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
        """Commit what was put, also after an error, and close."""
        try:
            # A full disk is reported once, by the first error.
            with self._translate_errors() if error is None else suppress(sqlite3.DatabaseError):
                self._connection.commit()
        finally:
            self._connection.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors of SQLite into one that names the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in _CORRUPT_CODES:
                remedy = "it is damaged; remove it, its content can be computed again"
            else:
                remedy = "free some space, or make the folder writable"
            raise DxsegError(f"{self._path or 'a temporary file'}: {error}; {remedy}") from error

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of the keys that have no record, in order."""
        return [place for place, present in enumerate(self._contains(keys)) if not present]

    def put(self, key: str, record: bytes) -> None:
        """Store a record, replacing one of the same key."""
        with self._translate_errors():
            self._connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (key, record))
            self._pending += 1
            if self._pending >= _ROWS_PER_COMMIT:
                self._connection.commit()
                self._pending = 0

    def read(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Yield the records of some keys in their order, a block in memory at a time.

        Raises:
            KeyError: A key has no record.
        """
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            block = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(block))  # only marks are pasted: keys are bound
            query = f"SELECT key, record FROM records WHERE key IN ({marks})"  # nosec
            with self._translate_errors():
                found = dict(self._connection.execute(query, block))
            for key in block:
                yield found[key]

    def _contains(self, keys: Sequence[str]) -> Iterator[bool]:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            block = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(block))  # only marks are pasted: keys are bound
            query = f"SELECT key FROM records WHERE key IN ({marks})"  # nosec
            with self._translate_errors():
                found = {key for (key,) in self._connection.execute(query, block)}
            for key in block:
                yield key in found


def file_key(path: Path, *parts: object) -> str:
    """Make a key of the state of a file: path, size and modification time.

    Args:
        path: The file.
        parts: Other values the record depends on.

    Raises:
        OSError: The file cannot be examined.
    """
    if isinstance(path, RemotePath):
        return "|".join(map(str, (*parts, path.version(), path)))
    status = path.stat()
    # Bytes of a name that are no valid text stay distinct.
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
