"""What a call of the command line came to."""

from __future__ import annotations

from typing import Any


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def assert_fails(result: Any, code: int, *expected: str) -> None:
    """One line that names the problem, the exit code, and never a traceback."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    told = [line for line in lines(result.stderr) if line.startswith("error: ")]
    assert len(told) == 1, result.stderr
    for text in expected:
        assert text in told[0]
