"""`dxseg export hub`: a folder that dxseg reads as a model and the hub's own library as a card."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import dxseg
from dxseg import export_hub
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.export.model_card import plain
from dxseg.inference.model_folder import read_info
from dxseg.io.atomic import sha256_file, write_json_atomic
from dxseg.reports.metric_columns import IMAGE_METRICS, MASK_METRICS

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def exported(cli: Any, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "model-for-the-hub"
    result = cli("export", "hub", trained, folder)
    assert result.exit_code == 0, result.output
    assert "README.md" in result.stdout
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A run that may be changed, as far as an export reads it."""
    run = tmp_path / "run"
    shutil.copytree(trained / "model", run / "model")
    for name in ("run.json", "evaluation.json"):
        shutil.copy(trained / name, run)
    return run


def change(path: Path, **values: Any) -> None:
    write_json_atomic(path, json.loads(path.read_text()) | values)


def test_the_folder_predicts_as_the_run(cli, trained, phantoms, exported, tmp_path):
    images = sorted((phantoms / "images").iterdir())[:4]
    tables = []
    for model, name in ((trained, "run"), (exported, "hub")):
        result = cli("predict", model, *images, "--out", tmp_path / name, "--no-overlays")
        assert result.exit_code == 0, result.output
        tables.append(pd.read_csv(tmp_path / name / "predictions.csv"))
    pd.testing.assert_frame_equal(*tables)
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    weights = "model.safetensors"
    assert sha256_file(exported / weights) == sha256_file(trained / "model" / weights)


def test_the_hubs_library_reads_the_results(trained, exported):
    card = hub.ModelCard.load(exported / "README.md")
    said = card.data.to_dict()
    assert (said["library_name"], said["pipeline_tag"]) == ("dxseg", "image-segmentation")
    evaluation = json.loads((trained / "evaluation.json").read_text())
    expected = {
        figure.key: evaluation[figure.key]
        for figure in (*MASK_METRICS, *IMAGE_METRICS)
        if evaluation[figure.key] is not None
    }
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found == pytest.approx(expected, abs=1e-6)
    [dataset] = {(r.dataset_name, r.dataset_split) for r in card.data.eval_results}
    assert dataset == (evaluation["dataset"], "test")


def test_the_card_says_what_it_must(trained, exported):
    text = hub.ModelCard.load(exported / "README.md").text
    record = json.loads((trained / "run.json").read_text())
    evaluation = json.loads((trained / "evaluation.json").read_text())
    low, high = evaluation["dice_all_ci"]
    info = read_info(exported)
    for told in (
        "Not for clinical use",
        record["dataset_digest"],
        record["splits_sha256"],
        info.weights_sha256,
        f"| {evaluation['dice_all']:.3f} | {low:.3f} to {high:.3f} |",
        f"| Masks used in training | {record['cases']['train_masks']} |",
        f"| {info.mask_temperature:.3f} |",
        "ECE, pixels",
        "Rule-out threshold",
        "## Limits",
    ):
        assert told in text
    page = MarkdownIt("commonmark").enable("table").render(text)
    # A row that is cut by an empty line would leave its bars in a paragraph.
    assert page.count("<table>") == 4
    assert "<p>|" not in page


def test_no_path_and_no_case_is_in_it(trained, phantoms, exported):
    told = "".join((exported / name).read_text() for name in ("README.md", "model.json"))
    for name in (*trained.parts[1:], *phantoms.parts[1:-1], *Dataset.load(phantoms).cases.case_id):
        assert name not in told, name


def test_what_else_the_run_remembers_stays_there(copied, tmp_path):
    home = "/data/of/dr-x/MRN-1"
    change(copied / "run.json", stage1_from=home, dataset=home, distilled_from={"run": home})
    change(copied / "evaluation.json", host=home)
    change(copied / "model" / "model.json", training={"method": "a", "note": home})
    out = tmp_path / "out"
    export_hub(copied, out)
    assert read_info(out).training == {"method": "a"}
    for path in out.iterdir():
        assert home.encode() not in path.read_bytes()


def test_names_from_outside_are_text(copied, tmp_path):
    name = "a | <img src=x> [b](http://x)\n# {{ 7*7 }} ---"
    change(copied / "run.json", dataset_name=name)
    export_hub(copied, tmp_path / "out")
    card = hub.ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results[0].dataset_name == name
    page = MarkdownIt("commonmark").enable("table").render(card.text)
    assert "<img" not in page
    assert "<a href" not in page
    assert f"<td>{escaped(name)}</td>" in page


def escaped(text: str) -> str:
    """As a renderer of Markdown writes text."""
    return html.escape(" ".join(text.split()), quote=False).replace('"', "&quot;")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_plain_text_is_shown_and_nothing_else(text):
    page = MarkdownIt("commonmark").render(f"x{plain(text)}x")
    assert page == f"<p>x{escaped(text)}x</p>\n"


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("evaluation.json", {"weights_sha256": "0" * 64}),
        ("evaluation.json", {"label_prompts": True}),
        ("evaluation.json", {"split": "validation"}),
        ("evaluation.json", {"counts": "secret"}),
        ("run.json", {"dataset_digest": "secret"}),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(copied, tmp_path, file, values):
    change(copied / file, **values)
    with pytest.raises(DxsegError, match=file) as error:
        export_hub(copied, tmp_path / "out")
    assert "secret" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_volumes_that_were_left_out_are_counts_too(copied, tmp_path):
    counts = json.loads((copied / "evaluation.json").read_text())["counts"]
    left_out = {"volumes_left_out": {"slices of different size": 1}}
    change(copied / "evaluation.json", counts=counts | left_out)
    export_hub(copied, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").is_file()


def test_a_run_that_is_not_evaluated_is_told_what_to_do(cli, copied, tmp_path):
    (copied / "evaluation.json").unlink()
    result = cli("export", "hub", copied, tmp_path / "out")
    assert result.exit_code == 1
    assert "dxseg evaluate" in result.stderr


def test_a_folder_with_other_things_is_left_alone(copied, tmp_path):
    out = tmp_path / "out"
    (out / ".git").mkdir(parents=True)
    for _ in range(2):  # the second time over the first
        export_hub(copied, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DxsegError, match=r"notes\.txt"):
        export_hub(copied, out)
    assert dxseg.info(out)["training"].keys() == {"method", "seed", "dataset"}
