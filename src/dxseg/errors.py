"""Errors that a user can fix; the command line prints them without a traceback."""

from __future__ import annotations

from collections.abc import Mapping

SHOWN = 80
"""Characters of a wrong value in a message at most."""


class DxsegError(Exception):
    """An error that a user can fix: the message has file, value, expectation and remedy."""

    exit_code = 1


class UsageError(DxsegError):
    """A wrong request: an unknown name, a value out of range, options that exclude each other."""

    exit_code = 2


class UnexpectedError(DxsegError):
    """Something that nobody foresaw; the exception is its cause."""


def unexpected_error(where: object, error: Exception) -> UnexpectedError:
    """Make an error of any exception, so that one bad file does not end the work on the others.

    Args:
        where: The file.
        error: What was raised; kept as the cause.
    """
    wrapped = UnexpectedError(
        f"{where}: {type(error).__name__}: {error}; expected no such error; leave the file out, "
        "and report this to dxseg"
    )
    wrapped.__cause__ = error
    return wrapped


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received, for example from a scheduler; handled like Ctrl-C."""


def refuse_unused(reason: str, options: Mapping[str, object]) -> None:
    """Refuse options that would have no effect.

    Args:
        reason: Why, as the beginning of the message.
        options: Value of each option; false or empty: it is not set.

    Raises:
        UsageError: One is set.
    """
    if given := [name for name, value in options.items() if value]:
        raise UsageError(f"{reason}: {', '.join(given)} would have no effect; leave that out")


def quote(text: str) -> str:
    """Quote a wrong value in a message; a long one is cut.

    Args:
        text: The value, which may come from anybody.
    """
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."
