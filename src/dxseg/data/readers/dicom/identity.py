"""Pseudonyms: keyed hashes in place of who and what DICOM files name."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from dxseg.errors import DxsegError, UsageError

_KEY_BYTES = 32
_DIGITS = 16


class Pseudonyms:
    """Turns identifiers into names that only the holder of the key can connect with them."""

    def __init__(self, key: bytes) -> None:
        """Hold the key.

        Args:
            key: 32 secret bytes; the same key gives the same pseudonyms.
        """
        self._key = key

    def name(self, kind: str, *identifiers: str) -> str:
        """Give the pseudonym of an identifier: HMAC-SHA256, cut to 64 bits.

        Without the key, identifiers cannot be tried out one after the other, as they could be with
        a plain hash: there are few patient numbers. The odds that
        any two of a million names agree by chance are one in 40 million.

        Args:
            kind: What is named, such as "patient"; equal identifiers of two kinds differ.
            identifiers: What identifies it, all parts.

        Returns:
            The kind, a hyphen, 16 hexadecimal digits.
        """
        message = "\0".join([kind, *identifiers]).encode("utf-8", "surrogateescape")
        digits = hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]
        return f"{kind}-{digits}"


def open_key(path: Path, dataset: Path) -> bytes:
    """Read the key of the pseudonyms, or make a new one that only its owner may read.

    Args:
        path: The key's file: 64 hexadecimal digits.
        dataset: The folder it must not lie in, because datasets are passed on.

    Returns:
        32 bytes.

    Raises:
        UsageError: The file lies, or would lie, in the dataset.
        DxsegError: It holds something else, or cannot be read or made.
    """
    path = path.resolve()
    if path.is_relative_to(dataset.resolve()):
        raise UsageError(
            f"{path}: the key lies in the dataset, and would be passed on with it; expected a file "
            "outside; whoever has the key can connect patients with their pseudonyms"
        )
    try:
        if not path.exists():
            _make(path)
        content = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(content)
    except OSError as error:
        raise DxsegError(f"{path}: cannot be used as key ({error.strerror})") from error
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        # Its content may be a secret of another kind.
        raise DxsegError(
            f"{path}: no key; expected {2 * _KEY_BYTES} hexadecimal digits; name another file, "
            "which is made if it is absent"
        )
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        # `atomic_path` would have it readable by others for a moment.
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{secrets.token_bytes(_KEY_BYTES).hex()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
