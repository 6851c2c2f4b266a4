"""A server needs neither Lightning nor the code that trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import dxseg.server.app, dxseg.server.uvicorn_server
print(*(name for name in sys.modules if name.split(".")[0] == "lightning"))
print(*(name for name in sys.modules if name.startswith("dxseg.training")))
"""


@pytest.mark.slow
def test_a_server_imports_neither_lightning_nor_training() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
