"""Errors that a user can mend; the command line prints them without a traceback."""

from __future__ import annotations


class DxsegError(Exception):
    """Something the user can mend: the message names what, where, what was expected, the remedy."""

    exit_code = 1


class UsageError(DxsegError):
    """The request itself is wrong (an unknown name, options that contradict each other)."""

    exit_code = 2


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came, as from a scheduler that takes the machine away: stop as for Ctrl-C."""
