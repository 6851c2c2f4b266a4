"""What tests of optional packages share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need_ray() -> None:
    """Skip the test, or the module, without Ray; it is not imported, since dxseg has to do that."""
    if find_spec("ray") is None:
        pytest.skip("the extra ray is not installed", allow_module_level=True)
