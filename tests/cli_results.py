"""Calling the command line in this process, and what came of it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything that was printed."""
        return self.stdout + self.stderr


def call(*arguments: object, columns: int = 200) -> Ended:
    """Run one command as in a terminal of `columns`; an error that is not handled is raised."""
    from dxseg.commands.app import run

    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _environment("COLUMNS", str(columns)),
    ):
        code = run([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def assert_fails(result: Ended, code: int, *expected: str) -> None:
    """One line that names the problem, the exit code, and never a traceback."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    told = [line for line in lines(result.stderr) if line.startswith("error: ")]
    assert len(told) == 1, result.stderr
    for text in expected:
        assert text in told[0]
