"""Killed at random moments, 50 times: nothing corrupt, nothing lost, and the same in the end.

`pytest -m slow tests/faults/test_kills.py` prints a table; `--kills 10` kills less often. Which
moments are drawn follows from a seed; what they hit, also from how busy the machine is.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import yaml

from faults.kill_jobs import JOBS, STUDY, Job

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi")

ALL_KILLS, SERVE_KILLS = 50, 6
WIDTHS = (9, 6, 12, 10, 24)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["faults.kill_jobs", "monai.losses.dice", "timm", "dxseg.server.uvicorn_server"]
)


def begin(work: Callable[[Path, Path], None], inputs: Path, folder: Path, ready: Event) -> None:
    """What the process runs."""
    ready.set()
    work(inputs, folder)


def start(work: Callable[[Path, Path], None], inputs: Path, folder: Path) -> Any:
    """A process at work; its libraries are read by the time this returns."""
    ready = CONTEXT.Event()
    process = CONTEXT.Process(target=begin, args=(work, inputs, folder, ready))
    process.start()
    assert ready.wait(600)
    return process


def kill(process: Any, after: float) -> bool:
    """Kill a process after some seconds; whether it was still at work."""
    process.join(after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.fixture(scope="module")
def inputs(phantoms: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(phantoms, folder / "phantoms", ignore=shutil.ignore_patterns(".cache", "check"))
    shutil.copytree(trained / "model", folder / "model")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(STUDY))
    for number, image in enumerate(sorted((phantoms / "images").iterdir())):
        label = folder / "tree" / ("benign", "malignant")[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, label)
        for part in range(2):  # which the import unites and writes
            shutil.copy(image, label / f"{image.stem}_mask_{part}.png")
    return folder


def scaled(kills: int, request: pytest.FixtureRequest) -> int:
    return math.ceil(kills * request.config.getoption("--kills") / ALL_KILLS)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Print a row of the table."""

    def print_row(*cells: object) -> None:
        with capsys.disabled():
            row = zip(cells, (*WIDTHS, 0), strict=False)
            print("".join(str(cell).ljust(width + 1) for cell, width in row))  # noqa: T201

    print_row("\njob", "kills", "interrupted", "the same", "where")
    return print_row


@pytest.mark.parametrize("name", JOBS)
def test_killed_and_continued_it_ends_the_same(
    name: str,
    inputs: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    tell: Callable[..., None],
) -> None:
    job = JOBS[name]
    kills = scaled(job.kills, request)
    whole = start(job.work, inputs, tmp_path / "whole")
    started = time.monotonic()
    whole.join()
    assert whole.exitcode == 0
    seconds = time.monotonic() - started
    expected = job.content(tmp_path / "whole")
    draw = random.Random(name)
    interrupted, same, places = 0, 0, Counter[str]()
    for number in range(kills):
        # Every third kill hits the process that goes on after the kill before.
        folder = tmp_path / str(number - (number % 3 == 2))
        if kill(start(job.work, inputs, folder), draw.uniform(0, 0.95) * seconds):
            interrupted += 1
            places[job.place(folder)] += 1
        job.sound(folder, expected)
        if number % 3 == 1 and number + 1 < kills:
            continue
        _finish(job, inputs, folder, expected)
        same += 1
    tell(name, kills, interrupted, f"{same} of {same}", dict(places) if any(places) else "")
    assert interrupted >= kills // 3, "the kills came too late to show anything"


def _finish(job: Job, inputs: Path, folder: Path, expected: dict[str, Any]) -> None:
    process = start(job.work, inputs, folder)
    process.join()
    assert process.exitcode == 0
    assert job.content(folder) == expected


def serve(inputs: Path, folder: Path) -> None:
    import dxseg
    from dxseg.io.atomic import write_text_atomic

    dxseg.serve(inputs / "model", port=0, ready=lambda url: write_text_atomic(folder / "url", url))


def test_a_killed_server_comes_back_with_the_same_answers(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    tell: Callable[..., None],
) -> None:
    """Clients that were being answered get no answer, never a wrong one."""
    kills = scaled(SERVE_KILLS, request)
    images = sorted((inputs / "phantoms" / "images").iterdir())[:4]
    before = {path: path.read_bytes() for path in (inputs / "model").iterdir()}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    draw = random.Random("serve")
    expected: dict[str, Any] = {}
    answered = 0
    for number in range(kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = start(serve, inputs, folder)
        while not (folder / "url").exists():
            assert process.exitcode is None
            time.sleep(0.02)
        url = (folder / "url").read_text()
        left = draw.randrange(1, 12)
        with httpx2.Client(timeout=120) as client, ThreadPoolExecutor(1) as pool:
            for turn in range(left):
                image = images[turn % len(images)]
                answer = _ask(client, url, image)
                assert expected.setdefault(image.name, answer) == answer
                answered += 1
            last = pool.submit(_ask, client, url, images[0])
            assert kill(process, draw.uniform(0, 0.2))
            with suppress(httpx2.TransportError):
                assert last.result() == expected[images[0].name]
                answered += 1
    tell("serve", kills, kills, f"{answered} of {answered}", "answers")
    assert {path: path.read_bytes() for path in (inputs / "model").iterdir()} == before


def _ask(client: Any, url: str, image: Path) -> dict[str, Any]:
    answer = client.post(f"{url}/v1/predict", files={"file": (image.name, image.read_bytes())})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = json.loads(answer.text)
    del content["request_id"]
    return content
