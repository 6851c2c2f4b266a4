"""Rows of results.csv."""

from __future__ import annotations

from dxseg.experiments.results import strip_paths


def test_paths_of_the_machine_are_left_out() -> None:
    error = "/srv/x/out/runs/unet/stage2: diverged; see '/var/log/a b' and D:\\data\\x\\y.log"
    assert strip_paths(error).startswith("stage2: diverged; see 'a b' and y.log")
    for harmless in ("0.5 / 3 and a/b", "it needs stage1/ab12/fold-0, which failed"):
        assert strip_paths(harmless) == harmless
