"""Imports of volumes that are interrupted, repeated or attacked."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxseg.data.importers.volume_dataset import write_volumes
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from progress_calls import on_progress
from volume_import import LIVER, age, bring, files, is_aged
from volume_phantom import SHAPE, TURNS, ct, save


@pytest.mark.parametrize("volume", [1, 2])
def test_an_interrupted_import_goes_on_where_it_stopped(
    lits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volume: int
) -> None:
    bring(lits, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done == volume:
            raise KeyboardInterrupt

    with on_progress(stop), pytest.raises(KeyboardInterrupt):
        bring(lits, tmp_path / "out")
    assert not (tmp_path / "out/dataset.yaml").exists()
    before = age(tmp_path / "out/images")
    damaged = tmp_path / "out/images/volume-0/0003.png"
    if volume == 2:
        damaged.write_bytes(b"")
    bring(lits, tmp_path / "out")
    redone = {path for path in before if volume == 2 and path.parent == damaged.parent}
    assert {path for path in before if is_aged(path)} == before - redone, (
        "finished volumes whose files are whole are not redone"
    )
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_killed_at_any_moment_it_leaves_no_dataset_or_a_whole_one(
    lits: Path, tmp_path: Path
) -> None:
    bring(lits, tmp_path / "whole")
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\n"
        "from volume_import import bring\n"
        "print('ready', flush=True)\n"
        "bring(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    delays = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(lits), str(tmp_path / "out")],
            stdout=subprocess.PIPE,
            env=os.environ,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delays.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (tmp_path / "out/dataset.yaml").exists():
            assert len(Dataset.load(tmp_path / "out")) == 30
            break
    bring(lits, tmp_path / "out", overwrite=True)
    whole, again = files(tmp_path / "whole"), files(tmp_path / "out")
    assert {name: again.get(name) for name in whole} == whole
    assert all(Path(name).name.startswith(".") for name in again.keys() - whole.keys())


def test_importing_anew_takes_over_what_is_the_same_and_drops_what_is_gone(
    lits: Path, tmp_path: Path
) -> None:
    bring(lits, tmp_path / "out")
    with pytest.raises(DxsegError, match="overwrite"):
        bring(lits, tmp_path / "out")
    age(tmp_path / "out/images")
    (lits / "volume-1.nii.gz").unlink()
    save(lits / "volume-2.nii.gz", ct(9)[0], TURNS[38])
    report = bring(lits, tmp_path / "out", overwrite=True)
    assert report.volumes == 2
    assert is_aged(tmp_path / "out/images/volume-0/0000.png")
    assert not is_aged(tmp_path / "out/images/volume-2/0000.png")
    assert not (tmp_path / "out/images/volume-1").exists()
    bring(lits, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    bring(lits, tmp_path / "out", axis="sagittal", window="percentiles", overwrite=True)
    assert len(Dataset.load(tmp_path / "out")) == 2 * SHAPE[0]
    assert len(list((tmp_path / "out/images/volume-0").iterdir())) == SHAPE[0]


def test_a_label_map_that_could_not_be_read_is_tried_again(
    lits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any, **__: Any) -> None:
        raise DxsegError("a package is not installed")

    with monkeypatch.context() as patch:
        patch.setattr("dxseg.data.importers.nifti.read_label_map", lacking)
        bring(lits, tmp_path / "out")
    assert Dataset.load(tmp_path / "out").cases["label"].eq("").all()
    bring(lits, tmp_path / "out", overwrite=True)
    bring(lits, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_nothing_is_written_through_a_link(lits: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    bring(lits, tmp_path / "out")
    images = tmp_path / "out/images"
    images.rename(tmp_path / "kept")
    images.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DxsegError, match="a link leads elsewhere"):
        bring(lits, tmp_path / "out", window="percentiles", overwrite=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_volume_is_in_memory_at_a_time(tmp_path: Path) -> None:
    import gc
    import weakref

    from dxseg.data.readers.volume import Volume

    alive: list[weakref.ref[Any]] = []

    def load() -> Volume:
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
        voxels = np.zeros((4, 5, 3), np.int16)
        alive.append(weakref.ref(voxels))
        return Volume(voxels, np.eye(4))

    found = [FoundVolume(f"v{number}", load) for number in range(3)]
    write_volumes(found, tmp_path / "out", {"name": "x"}, slicing=LIVER)
    assert len(alive) == 3
