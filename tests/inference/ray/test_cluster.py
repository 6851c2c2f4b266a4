"""Archives with Ray: real worker processes, killed while they work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dxseg.config.network import ModelConfig
from dxseg.config.presets import load_config
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.models.factory import Task, build_model
from dxseg.models.heads import LESION_PRIOR
from dxseg.phantoms.ultrasound import make_phantoms
from extras import need_ray

need_ray()

# A Ray that starts, or ends, takes seconds on an idle machine and does not start on a busy one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IMAGES = 48
RUN = """
import sys
from dxseg import predict
print(repr(predict(*sys.argv[1:3], output=sys.argv[3], engine="ray", workers=2)))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_phantoms(tmp_path_factory.mktemp("set"), images=IMAGES, size=256).root
    return root / "images"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config: ModelConfig = load_config("cpu", "unet").model
    info = ModelInfo(
        threshold=LESION_PRIOR,
        model=config,
        preprocessing=Preprocessing(image_size=256, channels=1, mean=[0.5], std=[0.5]),
        labels=["normal", "benign", "malignant"],
    )
    folder = tmp_path_factory.mktemp("model")
    save_model_folder(folder, build_model(config, Task(1, 1, 3), pretrained=False), info)
    return folder


@pytest.fixture
def start(images: Path, model: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start an archive in a process of its own; all of its processes are ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(output: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, str(model), str(images), str(output)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def parent(pid: int) -> int:
    """Of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def workers(process: subprocess.Popen[Any]) -> list[int]:
    """The processes that hold the model: those of Ray that this one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            named = b"ray::MapWorker(MapBatches(PartPredictor))" in path.read_bytes()
        except OSError:
            continue  # it has ended
        if named and parent(parent(int(path.parent.name))) == process.pid:
            found.append(int(path.parent.name))
    return found


def at_work(process: subprocess.Popen[Any], output: Path) -> list[int]:
    """The workers, once the first part is there and the last one is not."""
    while not list(output.glob("results/*.parquet")):
        assert process.poll() is None, "it ended before it was disturbed"
        time.sleep(0.01)
    return workers(process)


def results(output: Path) -> pd.DataFrame:
    table = pd.read_parquet(output / "results").sort_values("name", ignore_index=True)
    assert not table["name"].duplicated().any(), "one row an image"
    return table


@pytest.fixture(scope="module")
def undisturbed(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(model), str(images), str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"done={IMAGES}, skipped=0, failed=[]" in done.stdout
    table = results(output)
    assert len(table) == IMAGES
    return table


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    start: Callable[[Path], subprocess.Popen[str]], undisturbed: pd.DataFrame, tmp_path: Path
) -> None:
    process = start(tmp_path / "out")
    victims = at_work(process, tmp_path / "out")
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == 0
    assert f"done={IMAGES}, skipped=0, failed=[]" in said
    pd.testing.assert_frame_equal(results(tmp_path / "out"), undisturbed)


def test_a_master_that_is_killed_goes_on_where_it_was(
    start: Callable[[Path], subprocess.Popen[str]], undisturbed: pd.DataFrame, tmp_path: Path
) -> None:
    process = start(tmp_path / "out")
    orphans = at_work(process, tmp_path / "out")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert orphans
    while any(map(parent, orphans)):
        time.sleep(0.1)  # Ray ends them
    before = len(results(tmp_path / "out"))
    assert before < IMAGES, "it was killed too late"
    said, _ = start(tmp_path / "out").communicate()
    assert f"done={IMAGES - before}, skipped={before}, failed=[]" in said
    pd.testing.assert_frame_equal(results(tmp_path / "out"), undisturbed)
