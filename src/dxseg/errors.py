"""Errors that a user can fix; the command line prints them without a traceback."""

from __future__ import annotations


class DxsegError(Exception):
    """An error that a user can fix: the message has file, value, expectation and remedy."""

    exit_code = 1


class UsageError(DxsegError):
    """A wrong request: an unknown name, a value out of range, options that exclude each other."""

    exit_code = 2


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received, for example from a scheduler; handled like Ctrl-C."""
