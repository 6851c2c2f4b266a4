"""Settings of the server: address, token and limits."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from pathlib import Path

from dxseg.errors import UsageError

TOKEN_LENGTH = 16
"""Shortest token, characters."""

_TOKEN = re.compile(rf"[A-Za-z0-9._~+/=-]{{{TOKEN_LENGTH},4096}}")


@dataclass(frozen=True)
class Settings:
    """Settings of the server, independent of the model.

    Attributes:
        host: Address to listen on; any but a loopback address needs a token.
        token: Bearer token of clients; None accepts every client.
        queue: Maximum number of images in flight; beyond it requests get 429.
        max_bytes: Limit of a request.
        max_pixels: Limit of height times width of an image.
        upload_seconds: Time allowed for sending a request.
        seconds: Time allowed for a prediction, from upload to response.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    queue: int = 32
    max_bytes: int = 64 * 2**20
    max_pixels: int = 2**24
    upload_seconds: float = 30.0
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check the limits, and that a server on a network has a token.

        Raises:
            UsageError: A limit is not positive or not finite, or an address other than loopback
                has no token.
        """
        for name in ("queue", "max_bytes", "max_pixels", "upload_seconds", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)}: expected a finite number above 0")
        if self.token is None and not self.is_loopback:
            raise UsageError(
                f"host {self.host}: other machines can reach it, so a token is needed; give a "
                "file with one (--token-file), or listen on 127.0.0.1"
            )

    @property
    def max_decoded_bytes(self) -> int:
        """Limit of pixels x channels x depth: 8 bytes per pixel for the largest image."""
        return 8 * self.max_pixels

    @property
    def max_volume_bytes(self) -> int:
        """Limit of the decoded volumes that are open, together: four of the largest images."""
        return 4 * self.max_decoded_bytes

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_token(path: str | Path) -> str:
    """Read a token from a file of one line.

    Args:
        path: The file; white space around the token is dropped.

    Raises:
        UsageError: It cannot be read, or has no token of at least `TOKEN_LENGTH` characters.
    """
    try:
        with Path(path).open("rb") as stream:
            token = stream.read(8192).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no token can be read ({type(error).__name__})") from error
    if not _TOKEN.fullmatch(token):
        # The token itself is not printed.
        raise UsageError(
            f"{path}: expected one line of at least {TOKEN_LENGTH} letters, digits or ._~+/=- "
            "(such as of `openssl rand -hex 32`)"
        )
    return token
