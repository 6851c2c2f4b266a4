"""Jobs in processes: order of need, failures that stop nobody, and processes that vanish."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from rich.console import Console

from dxseg.config.schema import RunConfig
from dxseg.experiments import processes
from dxseg.experiments.process_pool import run_orders
from dxseg.experiments.worker import Order


def pretend(order: Order, answer: Connection) -> None:
    """In place of training: succeeds, fails or vanishes, as the name says."""
    order.log.write_text("reading images\nthe last words\n")
    for folder in order.inputs.values():
        assert (folder / "stage1" / "stage1.json").is_file(), "started before what it needs"
    if "vanish" in order.name:
        os._exit(3)
    if "fail" in order.name:
        answer.send("diverged")
        return
    (order.output / "stage1").mkdir(parents=True)
    for name in ("coarse.safetensors", "stage1.json"):
        (order.output / "stage1" / name).write_text("{}")


def order(folder: Path, name: str, *needs: str) -> Order:
    inputs = {need: folder / need for need in needs}
    log = folder / f"{name}.log"
    return Order(name, folder, folder, folder / name, RunConfig(), None, inputs, log, 1)


@pytest.mark.parametrize("jobs", [1, 3])
def test_failures_are_told_and_the_others_go_on(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "work", pretend)
    needs = {
        "first": [],
        "vanishes": [],
        "second": ["first"],
        "fails": [],
        "follower": ["fails"],
        "third": ["first", "second"],
    }
    orders = [order(tmp_path, name, *before) for name, before in needs.items()]
    seen: list[int] = []
    failures = run_orders(
        orders,
        needs,
        jobs=jobs,
        console=Console(quiet=True),
        ended=lambda so_far: seen.append(len(so_far)),
    )
    assert set(failures) == {"vanishes", "fails", "follower"}
    assert failures["fails"] == "diverged"
    assert "exit code 3" in failures["vanishes"]
    assert "the last words" in failures["vanishes"]
    assert failures["follower"] == "it needs fails, which failed: diverged"
    assert [one.name for one in orders if one.done] == ["first", "second", "third"]
    assert len(seen) == 5
    again = run_orders(
        [one for one in orders if one.done],
        needs,
        jobs=jobs,
        console=Console(quiet=True),
        ended=lambda _: pytest.fail("what is done is skipped"),
    )
    assert again == {}
