"""What the command line prints with, and how its verbs end."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from dxseg.errors import DxsegError, TerminatedError

INTERRUPTED = 130
TERMINATED = (
    143  # what a shell says of a process that SIGTERM ended, so that one rule requeues both
)

_REMEDIES = {
    errno.ENOSPC: "; the disk is full: make room, then the same command continues",
    errno.EDQUOT: "; the quota is used up: make room, then the same command continues",
    errno.EFBIG: "; larger than files may be here: raise that limit (ulimit -f)",
    errno.EROFS: "; choose a folder that can be written to",
    errno.EACCES: "; choose a folder that you may use, or ask for the right to this one",
    errno.EPERM: "; choose a folder that you may use, or ask for the right to this one",
}

# Paths and labels may hold square brackets, so nothing printed is markup.
out = Console(markup=False, highlight=False)
err = Console(markup=False, highlight=False, stderr=True)


class Verbs(TyperGroup):
    """Ends every verb alike: one line for what a user can mend, and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; exit code 0 ok, 1 failed, 2 wrong usage, 130 or 143 stopped by a signal."""
        try:
            return super().invoke(ctx)
        except DxsegError as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            remedy = _REMEDIES.get(error.errno or 0, "")
            complain(f"{error.filename or 'the system'}: {error.strerror or error}{remedy}")
            raise typer.Exit(DxsegError.exit_code) from error
        except TerminatedError as error:
            err.print("Terminated. The same command continues where this one stopped.")
            raise typer.Exit(TERMINATED) from error
        except KeyboardInterrupt as error:
            err.print("Interrupted. The same command continues where this one stopped.")
            raise typer.Exit(INTERRUPTED) from error


def complain(problem: str) -> None:
    """Print one line that starts with `error:`."""
    # A file name may hold bytes that are no text.
    shown = problem.encode("utf-8", "backslashreplace").decode("utf-8")
    err.print(f"error: {shown}", style="red", soft_wrap=True)


def end_with(failures: Iterable[tuple[str, str]]) -> None:
    """End a verb that went on after failures: the first ten of them, and exit code 1.

    Args:
        failures: What failed, and why; nothing happens if there are none.
    """
    told = list(failures)
    for name, reason in told[:10]:
        complain(f"{name}: {reason}")
    if told:
        raise typer.Exit(DxsegError.exit_code)


def value_table(values: Mapping[str, Any], title: str) -> Table:
    """One row a value."""
    table = Table("", "", title=title, show_header=False)
    for key, value in values.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table


def methods_table(methods: Any, title: str) -> Table:
    """One column a method: a terminal is too narrow for one column a figure."""
    table = Table("", *methods["method"], title=title)
    for figure in methods.columns.drop(["method", "seeds"]):
        if not figure.endswith("_sd") and methods[figure].notna().any():
            table.add_row(figure, *[f"{value:.3f}" for value in methods[figure]])
    return table
