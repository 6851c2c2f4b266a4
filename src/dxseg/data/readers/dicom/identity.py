"""Pseudonyms: keyed hashes instead of identifiers in DICOM files."""

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
    """Makes names of identifiers that can be linked only with the key."""

    def __init__(self, key: bytes) -> None:
        """Create pseudonyms of a key.

        Args:
            key: 32 secret bytes; the same key makes the same pseudonyms.
        """
        self._key = key

    def name(self, kind: str, *identifiers: str) -> str:
        """Make the pseudonym of an identifier: HMAC-SHA256, truncated to 64 bits.

        Without the key, identifiers cannot be tried one by one, as with a plain hash: there are few
        patient numbers. The probability that any two of a million names are equal by chance is one
        in 40 million.

        Args:
            kind: Kind of object, such as "patient"; equal identifiers of two kinds differ.
            identifiers: All parts of the identifier.

        Returns:
            The kind, a hyphen, 16 hexadecimal digits.
        """
        message = "\0".join([kind, *identifiers]).encode("utf-8", "surrogateescape")
        digits = hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]
        return f"{kind}-{digits}"


def open_key(path: Path, dataset: Path) -> bytes:
    """Read the key of the pseudonyms, or create one that only its owner may read.

    Args:
        path: Key file: 64 hexadecimal digits.
        dataset: Folder in which it must not be, because datasets are shared.

    Returns:
        32 bytes.

    Raises:
        UsageError: The file is, or would be, in the dataset.
        DxsegError: It has other content, or cannot be read or created.
    """
    path = path.resolve()
    if path.is_relative_to(dataset.resolve()):
        raise UsageError(
            f"{path}: the key is in the dataset, and would be shared with it; expected a file "
            "outside; the key links patients with their pseudonyms"
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
            f"{path}: not a key; expected {2 * _KEY_BYTES} hexadecimal digits; choose another "
            "file, which is created if it is absent"
        )
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        # With `atomic_path` others could read it for a moment.
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{secrets.token_bytes(_KEY_BYTES).hex()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
