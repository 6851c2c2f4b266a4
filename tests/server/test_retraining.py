"""Training beside a server: one at a time, on what may be trained on, offered, taken back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxseg.config.presets import read_config
from dxseg.data.table.annotations import Annotation
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.server.retraining import trainer as trainer_module
from dxseg.server.retraining.job import usable_masks
from dxseg.server.retraining.models import find_run
from dxseg.server.retraining.trainer import Trainer, TrainingStateError
from retrained import COMPARED, FIRST, SECOND, Loop, shown, split_table, write_run
from serving import squares, until

pytestmark = pytest.mark.slow  # the server trains: not the main job


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    made = Loop(tmp_path, monkeypatch)
    yield made
    made.close()


def begin(loop: Loop, **options: int) -> Trainer:
    """Start a training with one new mask."""
    loop.save("case1")
    trainer = loop.trainer(**options)
    trainer.begin()
    until(lambda: bool(loop.starts()))
    return trainer


def finish(loop: Loop, trainer: Trainer) -> None:
    loop.order("finish")
    until(lambda: trainer.status().state == "done")
    loop.order("")


def use_mask(folder: Path) -> set[str]:
    table = pd.read_csv(folder / "splits.csv")
    return set(table["case_id"][table["use_mask"]])


def test_the_model_in_use_has_its_figures_and_only_masks_of_training_cases_are_new(
    loop: Loop,
) -> None:
    trainer = loop.trainer()
    figures = {"model": FIRST[:12], "masks": 1, "finished": "2026-01-02T03:04:05+00:00"}
    figures |= {"split": "validation", "dice": 0.5, "low": 0.25, "high": 0.75, "images": 2}
    assert shown(trainer)["in_use"] == figures
    assert (trainer.status().state, trainer.status().new_masks) == ("idle", 0)
    with pytest.raises(UsageError, match="save some first"):
        trainer.begin()
    for case in ("case1", "case5", "case6", "case0"):  # new, validation, test, corrected
        loop.save(case)
    assert trainer.status().new_masks == 2


def test_it_is_trained_on_a_copy_of_the_table_with_the_new_masks(loop: Loop) -> None:
    for case in ("case2", "case6"):
        loop.save(case)
    before = {path: path.read_bytes() for path in loop.root.glob("*.*")}
    trainer = begin(loop)
    folder = loop.folder / "0001"
    assert use_mask(folder) == {"case0", "case1", "case2", "case5", "case6", "case7"}
    split = pd.read_csv(folder / "splits.csv").set_index("case_id")["split"]
    assert split.equals(split_table().set_index("case_id")["split"])
    assert read_config(folder / "config.yaml").split.masks is None, "the file says which"
    copied = Dataset.load(folder / "dataset")
    assert copied.digest() == Dataset.load(loop.root).digest()
    row = copied.cases.set_index("case_id", drop=False).loc["case2"]
    assert copied.image_path(row) == loop.root / "images/case2.png"
    assert copied.mask_path(row) == loop.root / row["mask"]
    after = {path: path.read_bytes() for path in loop.root.glob("*.*")}
    assert before.keys() == after.keys()
    assert [path.name for path in before if before[path] != after[path]] == [
        path.name for path in before if path.name in ("annotations.csv", "cases.csv")
    ], "case1 was saved, nothing else"
    assert trainer.status().masks == 3
    loop.save("case3")  # while it is being trained
    assert Dataset.load(folder / "dataset").digest() == copied.digest()
    finish(loop, trainer)
    trainer.use(SECOND[:12], loop.served.append)
    assert trainer.status().new_masks == 1, "the one that was saved meanwhile"


def test_without_a_budget_every_mask_of_a_training_case_is_used(loop: Loop, tmp_path: Path) -> None:
    loop.save("case1")
    (loop.root / "annotations.csv").unlink()  # came with an import, say
    dataset = Dataset.load(loop.root)
    limited = usable_masks(dataset, [], loop.run)
    assert (limited.masks, limited.new) == (1, 0)
    loop.save("case2")
    trainer = loop.trainer()
    trainer.begin()
    finish(loop, trainer)
    trainer.use(SECOND[:12], loop.served.append)
    assert trainer.status().new_masks == 0, "nor does the next one use what the first was not to"
    dataset = Dataset.load(loop.root)
    everything = write_run(tmp_path / "all", FIRST, split_table(), masks=None)
    free = usable_masks(dataset, [], everything)
    assert (free.masks, free.new, free.saved) == (3, 2, ())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("table") / "data", 8).root


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    splits=st.lists(
        st.sampled_from(["train", "validation", "test", "dropped"]), min_size=8, max_size=8
    ),
    used=st.lists(st.booleans(), min_size=8, max_size=8),
    masked=st.lists(st.booleans(), min_size=8, max_size=8),
    drawn=st.lists(st.sampled_from(["2025", "2027", ""]), min_size=8, max_size=8),
    budget=st.sampled_from([None, 3]),
)
def test_no_mask_of_a_case_that_validates_or_tests_is_ever_added(
    table: Path, tmp_path_factory: pytest.TempPathFactory, splits, used, masked, drawn, budget
) -> None:
    before = split_table().assign(split=splits, use_mask=used, fold=0)
    run = write_run(tmp_path_factory.mktemp("runs") / "run", FIRST, before, masks=budget)
    cases = Dataset.load(table).cases.copy()
    cases["mask"] = [f"masks/{n}.png" if has else "" for n, has in enumerate(masked)]
    dataset = Dataset(table, Dataset.load(table).spec, cases)
    annotations = [
        Annotation(f"{year}-01-01T00:00:00+00:00", f"case{n}", "other", f"masks/{n}.png", "", "")
        for n, year in enumerate(drawn)
        if year
    ]
    found = usable_masks(dataset, annotations, run)
    after, known = found.splits["use_mask"], dataset.has_mask
    added = after & ~before["use_mask"]
    assert not (after & ~known).any(), "what has no mask has none to use"
    assert before["split"][added].isin(["train"]).all()
    assert (after | ~before["use_mask"] | ~known).all(), "nothing is taken away"
    train, lesion = before["split"].eq("train"), ~dataset.lesion_free
    since = pd.Series([year == "2027" for year in drawn]) & known
    expected = since if budget else since | ~before["use_mask"]
    assert found.new == int((train & lesion & known & expected).sum())
    assert found.masks == int((after & train & lesion).sum())


def test_two_that_press_the_button_start_one_training(loop: Loop) -> None:
    trainer = begin(loop)
    outcomes: list[str] = []

    def press() -> None:
        try:
            trainer.begin()
        except TrainingStateError as error:
            outcomes.append(str(error))

    tabs = [threading.Thread(target=press) for _ in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(outcomes) == 4
    assert "a training is running" in outcomes[0]
    assert loop.starts() == {"0001": 1}


def test_progress_is_that_of_the_whole_and_comes_from_the_files(loop: Loop) -> None:
    trainer = begin(loop)
    until(lambda: trainer.status().progress is not None)
    progress = shown(trainer)["progress"]
    assert progress == {"phase": "preparing", "step": 0, "steps": 150, "fraction": 0.0}
    assert trainer.status().seconds_left is None
    loop.order("step 50")
    until(lambda: trainer.status().progress.step == 50)
    status = trainer.status()
    assert status.progress.phase == "stage2"
    assert status.progress.fraction == pytest.approx(0.95 / 3)
    assert status.seconds_left is not None
    assert status.seconds_left > 0


def test_a_cancelled_training_leaves_nothing(loop: Loop) -> None:
    trainer = begin(loop)
    pid = trainer._running._process.pid
    trainer.cancel()
    assert not (loop.folder / "0001").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (trainer.status().state, trainer.status().new_masks) == ("idle", 1)
    with pytest.raises(TrainingStateError, match="no training to cancel"):
        trainer.cancel()
    trainer.begin()
    assert trainer.status().state == "running"


def test_the_new_model_is_offered_used_kept_across_a_restart_and_taken_back(loop: Loop) -> None:
    trainer = begin(loop)
    finish(loop, trainer)
    status = shown(trainer)
    assert status["offered"]["model"] == SECOND[:12]
    assert status["comparison"] == COMPARED
    assert status["in_use"]["model"] == FIRST[:12], "nobody has chosen yet"
    with pytest.raises(TrainingStateError, match="neither offered nor the previous"):
        trainer.use("0123", loop.served.append)
    trainer.use(SECOND[:12], loop.served.append)
    assert [one.info.weights_sha256 for one in loop.served] == [SECOND]
    assert trainer.run == loop.folder / "0001/run"
    assert (trainer.status().state, trainer.status().new_masks) == ("idle", 0)
    trainer.close()

    again = loop.trainer()
    assert again.run == loop.folder / "0001/run"
    assert again.status().previous.model == FIRST[:12]
    again.use(FIRST[:12], loop.served.append)
    assert loop.served[-1].info.weights_sha256 == FIRST
    assert (again.run, again.status().previous.model) == (loop.run, SECOND[:12])
    assert again.status().state == "idle", "what was in use is not offered again"
    again.close()
    write_run(loop.run.with_name("other"), "ef" * 32, split_table())
    loop.run = loop.run.with_name("other")
    assert loop.trainer().run == loop.run, "the command names another model"


def test_old_trainings_are_removed_but_not_models_that_may_be_needed(loop: Loop) -> None:
    trainer = begin(loop)
    for case, kept in (
        ("case2", {"0001"}),
        ("case3", {"0001", "0002"}),
        ("case4", {"0001", "0002", "0003"}),
        ("case1", {"0002", "0003", "0004"}),
    ):
        finish(loop, trainer)
        assert {one.name for one in loop.folder.glob("0*")} == kept
        name = max(kept)
        (loop.folder / name / "run/run.json").write_text(
            json.dumps(
                json.loads((loop.run / "run.json").read_text()) | {"weights_sha256": name * 16}
            )
        )
        trainer.use((name * 16)[:12], loop.served.append)
        loop.save(case)
        trainer.begin()
        until(lambda name=name: f"{int(name) + 1:04}" in loop.starts())


def test_cancelling_while_the_model_is_swapped_waits_and_takes_nothing_away(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = begin(loop)
    finish(loop, trainer)
    loading, may_go, refused = threading.Event(), threading.Event(), []
    load = loop.load

    def slow(folder: Path):
        loading.set()
        assert may_go.wait(60)
        return load(folder)

    def cancel() -> None:
        try:
            trainer.cancel()
        except TrainingStateError as error:
            refused.append(str(error))

    monkeypatch.setattr(trainer, "_load", slow)
    using = threading.Thread(target=trainer.use, args=(SECOND[:12], loop.served.append))
    using.start()
    assert loading.wait(60)
    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    may_go.set()
    using.join(60)
    cancelling.join(60)
    assert refused == ["there is no training to cancel"]
    assert loop.served
    assert (trainer.run / "model/model.json").is_file()


def test_a_model_that_cannot_be_loaded_changes_nothing(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = begin(loop)
    finish(loop, trainer)

    def broken(folder: Path):
        raise DxsegError(f"{folder}: damaged; copy it again")

    monkeypatch.setattr(trainer, "_load", broken)
    with pytest.raises(DxsegError, match="damaged"):
        trainer.use(SECOND[:12], loop.served.append)
    assert loop.served == []
    assert (trainer.run, trainer.status().state) == (loop.run, "done")


def test_a_killed_training_is_told_and_continued(loop: Loop) -> None:
    trainer = begin(loop)
    os.kill(trainer._running._process.pid, signal.SIGKILL)
    until(lambda: trainer.status().state == "stopped")
    assert "lack of memory; continue it" in trainer.status().problem
    trainer.begin()
    until(lambda: loop.starts() == {"0001": 2})
    assert (trainer.status().state, trainer.status().problem) == ("running", "")
    finish(loop, trainer)


def test_the_next_server_continues_what_the_last_one_left(loop: Loop) -> None:
    trainer = begin(loop)
    with pytest.raises(UsageError, match="another server trains"):
        loop.trainer()
    trainer.close()
    again = loop.trainer()
    assert again.status().state == "stopped"
    again.start()
    until(lambda: loop.starts() == {"0001": 2})
    finish(loop, again)


def test_a_failure_is_told_without_the_path_of_the_dataset_and_not_repeated_by_itself(
    loop: Loop,
) -> None:
    loop.order(f"fail {loop.root}/cases.csv: no such thing; mend it")
    loop.save("case1")
    trainer = loop.trainer()
    trainer.begin()
    until(lambda: trainer.status().state == "stopped")
    assert trainer.status().problem == "the dataset/cases.csv: no such thing; mend it"
    trainer.close()
    again = loop.trainer()
    again.start()
    assert again.status().state == "stopped"
    assert loop.starts() == {"0001": 1}
    again.cancel()
    assert again.status().state == "idle"


def test_it_starts_by_itself_after_so_many_masks_and_not_again_after_a_cancel(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "_POLL_SECONDS", 0.05)
    trainer = loop.trainer(train_after=2)
    trainer.start()
    loop.save("case1")
    loop.save("case5")  # validates
    assert not threading.Event().wait(0.5)
    assert trainer.status().state == "idle"
    loop.save("case2")
    until(lambda: trainer.status().state == "running")
    trainer.cancel()
    assert not threading.Event().wait(0.5)
    assert (trainer.status().state, trainer.status().new_masks) == ("idle", 2)


def test_a_full_disk_is_told_before_anything_is_written(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.save("case1")
    trainer = loop.trainer()
    usage = shutil.disk_usage(loop.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3))
    with pytest.raises(DxsegError, match="free some space"):
        trainer.begin()
    assert list(loop.folder.glob("0*")) == []
    assert trainer.status().state == "idle"


def test_half_a_folder_is_no_training(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.save("case1")
    trainer = loop.trainer()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dxseg.server.retraining.job.write_splits", full)
        with pytest.raises(OSError, match="No space"):
            trainer.begin()
    assert list(loop.folder.glob("0*")) == []
    (loop.folder / "0007").mkdir()  # of a server that was killed while it made one
    assert trainer.status().state == "idle"
    trainer.begin()
    until(lambda: loop.starts() == {"0008": 1})
    assert not (loop.folder / "0007").exists()


def test_what_does_not_fit_is_refused_at_the_start(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished run"):
        find_run(loop.root)
    assert find_run(loop.run / "model") == loop.run
    with pytest.raises(UsageError, match="train_after 0"):
        loop.trainer(train_after=0)
    fewer = write_run(tmp_path / "fewer", FIRST, split_table().head(7))
    loop.run, right = fewer, loop.run
    with pytest.raises(DxsegError, match="case7"):
        loop.trainer()
    loop.run = right
    assert loop.trainer().status().state == "idle", "the lock is free again"


def test_without_a_validation_mask_nothing_is_trained(loop: Loop, tmp_path: Path) -> None:
    table = split_table()
    table.loc[table["split"] == "validation", "use_mask"] = False
    loop.run = write_run(tmp_path / "blind", FIRST, table)
    loop.save("case1")
    with pytest.raises(UsageError, match="cannot be compared"):
        loop.trainer().begin()


def test_a_choice_whose_model_is_gone_is_an_error_with_a_remedy(loop: Loop) -> None:
    trainer = begin(loop)
    finish(loop, trainer)
    trainer.use(SECOND[:12], loop.served.append)
    trainer.close()
    shutil.rmtree(loop.folder / "0001")
    with pytest.raises(DxsegError, match=r"models\.json.*remove this file"):
        loop.trainer()
    (loop.folder / "models.json").write_text("[")
    with pytest.raises(DxsegError, match=r"models\.json.*remove it"):
        loop.trainer()
    (loop.folder / "models.json").unlink()
    assert loop.trainer().run == loop.run
