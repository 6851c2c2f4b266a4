"""Archives: tables of paths, results as Parquet, and Ray with a worker that is killed."""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.errors import DxsegError, UsageError
from dxseg.inference import archive
from dxseg.inference.bundle import read_info
from dxseg.inference.predict import predict_files

pytest.importorskip("ray.data", reason="the extra ray is not installed")
pa = pytest.importorskip("pyarrow")

from dxseg.inference.parquet_results import ParquetResults, as_table  # noqa: E402


@pytest.fixture(scope="module")
def images(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty phantoms in two folders, and one file that is no image."""
    folder = tmp_path_factory.mktemp("archive")
    for index, source in enumerate(sorted((phantoms / "images").glob("*.png")) * 2):
        target = folder / ("a" if index % 2 else "b") / f"{index:02}.png"
        target.parent.mkdir(exist_ok=True)
        if index < 40:
            shutil.copy(source, target)
    (folder / "a" / "broken.png").write_bytes(b"no image")
    return folder


class TestInputs:
    @pytest.mark.parametrize("column", ["file", "path"])
    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_a_table_of_paths(self, suffix: str, column: str, tmp_path: Path) -> None:
        paths = ["in/a/1.png", f"{tmp_path}/in/b/2.png", "in/a/1.png", "in/absent.png"]
        frame = pd.DataFrame({"other": "x", column: paths})
        table = tmp_path / f"list{suffix}"
        frame.to_csv(table, index=False) if suffix == ".csv" else frame.to_parquet(table)
        items = archive._images([table])
        assert [item.name for item in items] == ["a/1.png", "b/2.png", "absent.png"]
        assert items[1].source == tmp_path / "in/b/2.png"

    def test_mistakes_are_told(self, tmp_path: Path) -> None:
        table = tmp_path / "list.csv"
        table.write_text("picture\na.png\n")
        with pytest.raises(UsageError, match=r"list\.csv: expected .* columns file.* has picture"):
            archive._images([table])
        with pytest.raises(UsageError, match="must be the only input"):
            archive._images([table, tmp_path])
        table.with_suffix(".parquet").write_bytes(b"none")
        with pytest.raises(UsageError, match="cannot be read as Parquet"):
            archive._images([table.with_suffix(".parquet")])
        table.write_text("file\nscan.nii.gz\n")
        with pytest.raises(UsageError, match="a volume; the engine ray takes images"):
            archive._images([table])


class TestResults:
    def rows(self, trained: Path, *names: str) -> Any:
        rows = [
            {"name": n, "source": f"/{n}", "status": "ok", "model": "m", "height": "3"}
            for n in names
        ]
        return as_table(rows, [b"png"] * len(rows), read_info(trained / "model"))

    def test_parts_are_whole_and_what_is_dropped_is_gone(
        self, trained: Path, tmp_path: Path
    ) -> None:
        info = read_info(trained / "model")
        results = ParquetResults(tmp_path / "out", info)
        results.open(lambda _: True)
        results.add(self.rows(trained, "a", "b"))
        assert not list(results.folder.iterdir())
        results.flush()
        results.add(self.rows(trained, "c"))
        results.flush()
        results.flush()
        assert len(list(results.folder.iterdir())) == 2
        again = ParquetResults(tmp_path / "out", info)
        again.open(lambda row: row["name"] not in ("b", "c"))
        again.add(self.rows(trained, "b"))
        again.flush()
        table = pd.read_parquet(tmp_path / "out")
        assert table["name"].tolist() == ["a", "b"]
        assert table["height"].tolist() == [3, 3]
        assert table["error"].isna().all()

    def test_a_damaged_part_and_another_model_are_told(self, trained: Path, tmp_path: Path) -> None:
        results = ParquetResults(tmp_path, read_info(trained / "model"))
        part = tmp_path / "part-000000.parquet"
        part.write_bytes(b"PAR1")
        with pytest.raises(DxsegError, match=r"part-000000.*remove it"):
            results.open(lambda _: True)
        pd.DataFrame({"name": ["a"]}).to_parquet(part)
        with pytest.raises(DxsegError, match="its columns are name; this model writes"):
            results.open(lambda _: True)


class TestWithoutRay:
    """Everything but Ray: its answers come from a worker in this process."""

    def test_parts_that_come_twice_and_a_stop_in_between(
        self, trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []

        def answers(parts: list[Any], options: dict[str, Any], *_: Any) -> Iterator[Any]:
            worker = archive.Worker(options)
            asked.append(sum(map(len, parts)))
            for number, part in enumerate(parts):
                yield (table := worker(part))
                yield table
                if len(asked) == 1 and number == 2:
                    raise KeyboardInterrupt

        monkeypatch.setattr(archive, "_answers", answers)
        monkeypatch.setattr(archive, "_ray", lambda *_: nullcontext())
        monkeypatch.setattr(archive, "_PART_IMAGES", 4)
        settings: dict[str, Any] = {"batch_size": 1, "labels": {"b/00.png": "benign"}}
        bundle, out = trained / "model", tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            archive.predict_archive(images, bundle, out, **settings)
        second = archive.predict_archive(images, bundle, out, **settings)
        assert asked == [41, 41 - 23]  # 24 came, one of them broken
        assert (second.done, second.skipped, second.known) == (17, 23, 1)
        assert [name for name, _ in second.failed] == ["a/broken.png"]
        same_as_local(out, images, bundle, tmp_path / "local", settings["labels"])
        third = archive.predict_archive(images, bundle, out, **settings)
        assert (third.done, third.skipped, asked[-1]) == (0, 40, 1)
        assert pd.read_parquet(out / "predictions.parquet")["name"].is_unique


def same_as_local(
    out: Path, images: Path, bundle: Path, local: Path, labels: dict[str, str] | None = None
) -> None:
    """Compare the Parquet table with what `predict_files` writes."""
    predict_files(images, bundle, local, labels=labels, overlays=False)
    rows = pd.read_csv(local / "predictions.csv").sort_values("name")
    table = pd.read_parquet(out / "predictions.parquet").sort_values("name")
    assert table["name"].tolist() == rows["name"].tolist()
    for column in set(rows) - {"error"}:
        ours, theirs = table[column].reset_index(drop=True), rows[column].reset_index(drop=True)
        pd.testing.assert_series_equal(
            ours, theirs, check_dtype=False, check_names=False, rtol=1e-3, atol=1e-3
        )
    for name, mask in table.set_index("name")["mask"].dropna().items():
        with Image.open(local / "masks" / str(name)) as expected:
            found = np.asarray(Image.open(io.BytesIO(mask)))
            assert (found == np.asarray(expected)).mean() > 0.999, name


def workers() -> list[int]:
    """Process ids of the actors that hold the model, among the descendants of this process."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
                if b"MapWorker" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return [pid for pid in found if is_ours(pid)]


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_a_second_call_skips(
    trained: Path,
    images: Path,
    cli: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "_PART_IMAGES", 4)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if 0 < done < total and not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    settings: dict[str, Any] = {"workers": 2, "batch_size": 1}
    bundle, out = trained / "model", tmp_path / "out"
    first = archive.predict_archive(images, bundle, out, **settings, progress=kill)
    assert killed
    assert (first.done, first.skipped) == (40, 0)
    assert [name for name, _ in first.failed] == ["a/broken.png"]

    same_as_local(out, images, bundle, tmp_path / "local")
    again = cli("predict", bundle, images, "--out", out, "--engine", "ray")
    assert again.exit_code == 1  # the broken file is tried again
    assert "0 predicted, 40 already done, 1 failed" in again.output
    assert pd.read_parquet(out / "predictions.parquet")["name"].is_unique
