"""Files at addresses such as `s3://bucket/archive/a.png`, read through fsspec.

`RemotePath` is our own because what dxseg needs of it is small and strict: a whole file, once, into
memory, up to a size; no copy on the disk; addresses without credentials. A general path library
(universal_pathlib) offers far more, and none of these limits.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from dxseg.errors import DxsegError

FETCH_LIMIT = 2**30
"""Larger files are refused, whatever their server claims."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRETS = re.compile(r"(://)[^/?#\s'\"]*(?=@)|((?<=\?)[^\s'\"]+)")
_LOCAL = ("file", "local")
_THREADS = 32  # requests wait for the network, not for the processor


class RemotePath(PosixPath):
    """A file at an address, with the methods of `Path` that readers use.

    It is made by `as_path`. `/` and `with_name` give other addresses; whatever needs a name on the
    local disk raises `DxsegError`.
    """

    _content: bytes | None = None

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}"

    def __fspath__(self) -> str:
        raise DxsegError(f"{self}: not on the local disk; copy the file there for this")

    def fetch(self) -> RemotePath:
        """Read the file into memory; the path that is returned opens without another request.

        Raises:
            DxsegError: The file is absent, cannot be read, or has more than `FETCH_LIMIT` bytes.
        """
        with _translate_errors(str(self)):
            files, name = _file_system(str(self))
            with files.open(name, "rb") as stream:
                content: bytes = stream.read(FETCH_LIMIT + 1)
        if len(content) > FETCH_LIMIT:
            raise DxsegError(
                f"{self}: larger than {FETCH_LIMIT} bytes; expected an image; cut it into tiles"
            )
        fetched = type(self)(str(self))
        fetched._content = content
        return fetched

    def open(self, *_args: Any, **_options: Any) -> Any:
        """Open the file for reading in binary mode.

        Raises:
            DxsegError: As `fetch`.
        """
        content = self._content if self._content is not None else self.fetch()._content
        return io.BytesIO(content or b"")

    def read_bytes(self) -> bytes:
        """Read the whole file.

        Raises:
            DxsegError: As `fetch`.
        """
        content: bytes = self.open().read()
        return content

    def is_file(self) -> bool:
        """Whether there is such a file.

        Raises:
            DxsegError: The address cannot be reached.
        """
        if self._content is not None:
            return True
        with _translate_errors(str(self)):
            files, name = _file_system(str(self))
            return bool(files.isfile(name))

    def exists(self) -> bool:
        """Whether there is such a file; folders do not count.

        Raises:
            DxsegError: The address cannot be reached.
        """
        return self.is_file()

    def resolve(self, strict: bool = False) -> RemotePath:  # noqa: ARG002
        """Return the path itself: addresses have no links."""
        return self

    def size(self) -> int:
        """Read the size of the file in bytes.

        Raises:
            DxsegError: As `fetch`.
        """
        if self._content is not None:
            return len(self._content)
        with _translate_errors(str(self)):
            files, name = _file_system(str(self))
            return int(files.size(name) or 0)

    def stat(self, *, follow_symlinks: bool = True) -> NoReturn:  # noqa: ARG002
        """Raise an error: use `size` or `version`.

        Raises:
            DxsegError: Always.
        """
        raise DxsegError(f"{self}: not on the local disk; copy the file there for this")

    def version(self) -> str:
        """Identify the state of the file by what its server reports, without reading it.

        Returns:
            64 hexadecimal digits, from address, size, time and checksum as far as reported. HTTP
            servers are assumed not to change a file at the same address.

        Raises:
            DxsegError: The file is absent or cannot be reached.
        """
        with _translate_errors(str(self)):
            files, name = _file_system(str(self))
            state = str(files.ukey(name))
        return hashlib.sha256(f"{self}\n{state}".encode()).hexdigest()


def versions(paths: Sequence[RemotePath]) -> list[str]:
    """Identify the states of many files, several requests at a time; see `RemotePath.version`."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(RemotePath.version, paths))


def fetch(path: Path) -> Path:
    """Read a file at an address into memory; return a local path as it is.

    Args:
        path: From `as_path`.

    Raises:
        DxsegError: As `RemotePath.fetch`.
    """
    return path.fetch() if isinstance(path, RemotePath) else path


def is_address(text: str) -> bool:
    """Whether a text is an address instead of a path."""
    return _ADDRESS.match(text) is not None


def as_path(source: str | Path) -> Path:
    """Return a path that can be read: local, or at an address.

    Args:
        source: A path or an address. `file://` becomes a local path.
    """
    if isinstance(source, Path):
        return source
    if not is_address(source):
        return Path(source)
    parts = urlsplit(source)
    if parts.scheme.lower() in _LOCAL:
        return Path(unquote(parts.path))
    return RemotePath(source)


def address_fault(address: str) -> str:
    """Find what is wrong with an address, "" if nothing is.

    Credentials in an address would end up in tables, logs and run records. Dots, empty names and
    chains (`::`) could lead out of the folder that an address seems to lie in, or onto the disk.
    """
    rest = address.split("://", 1)[-1]
    authority, _, path = rest.partition("/")
    lowered = rest.lower()
    if "@" in authority or "?" in rest:
        return (
            "holds credentials or a query; expected an address without; put credentials where the "
            "package that reads it looks for them, such as the environment"
        )
    names = path.rstrip("/").split("/") if path.strip("/") else []
    if (
        "::" in address
        or "#" in rest
        or any(mark in lowered for mark in ("\\", "%2e", "%2f", "%5c"))
        or any(name in ("", ".", "..") for name in names)
    ):
        return (
            "expected a plain address: SCHEME://PLACE/NAMES without '..', '//', '::', '#' or '\\'"
        )
    return ""


def redact(text: str) -> str:
    """Replace credentials and queries of addresses in a text by `***`, for errors that quote it."""
    return _SECRETS.sub(lambda found: f"{found[1] or ''}***", text) if "://" in text else text


def _file_system(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    files, name = url_to_fs(address)
    return files, name


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Turn what fsspec and its drivers raise into an error that names the address.

    Their own texts are left out, apart from the operating system's: they may hold credentials.
    """
    try:
        yield
    except DxsegError:
        raise
    except FileNotFoundError as error:
        raise DxsegError(
            f"{address}: no such file, or the server is out of reach; correct cases.csv, or roots "
            "in dataset.yaml"
        ) from error
    except ImportError as error:
        raise DxsegError(
            f"{address}: no package to read such addresses is installed; {_driver(address)}"
        ) from error
    except Exception as error:  # every file system of fsspec has errors of its own
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise DxsegError(
                f"{address}: unknown kind of address; expected one that fsspec reads, such as "
                "s3://, gs://, https:// or file://"
            ) from error
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DxsegError(
            f"{address}: cannot be read ({reason}); check the address, the network and the "
            "credentials; the same command continues from what is there"
        ) from error


def _driver(address: str) -> str:
    """The advice of fsspec on what to install for an address."""
    from fsspec.registry import known_implementations

    known = known_implementations.get(address.split("://")[0], {})
    return str(known.get("err") or "install the fsspec driver for it").strip()
