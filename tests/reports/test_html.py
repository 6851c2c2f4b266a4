from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from dxseg.commands.evaluate import report as report_command
from dxseg.errors import DxsegError
from dxseg.reports.html import build_report

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Parses strictly: every opened element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.strip() + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run()


@pytest.fixture(scope="module")
def report(run) -> Page:
    path = build_report(run)
    assert path == run / "report.html"
    return page(path)


def table_of(report: Page, *titles: str) -> list[list[str]]:
    """The first table with all of these columns."""
    return next(
        table for table in report.tables if set(titles) <= {title.strip() for title in table[0]}
    )


def test_the_page_has_its_parts_in_order(report):
    headings = [
        "Can I trust it?",
        "Pictures",
        "Dice and lesions found",
        "Where it fails",
        "Which images get a mask",
        "Calibration",
        "All figures",
        "Training curves",
        "Protocol",
        "Limits",
    ]
    positions = [report.text.index(f"\n{heading}\n") for heading in headings]
    assert positions == sorted(positions)
    assert len(report.all("h1")) == 1
    assert "not a medical device" in report.text
    assert report.all("html")[0]["lang"] == "en"


def test_the_page_needs_nothing_from_outside_and_runs_nothing(report, run):
    for tag, attributes in report.tags:
        assert tag not in ("script", "link", "iframe", "object", "form", "a")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action"):
            assert str(attributes.get(name) or "data:image/png;").startswith("data:image/png;")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_every_image_is_a_png_with_an_alternative_text(report):
    images = report.all("img")
    assert len(images) >= 5
    for image in images:
        assert len(image["alt"]) > 20
        data = base64.b64decode(image["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert opened.format == "PNG"
            assert not opened.info.get("exif")
            assert np.array(opened.convert("L")).std() > 0


def test_tables_have_headers_and_captions(report):
    assert len(report.all("caption")) == len(report.all("table"))
    for header in report.all("th"):
        assert header["scope"] in ("col", "row")
    for table in report.tables:
        assert len({len(row) for row in table}) == 1


def test_figures_are_those_of_the_evaluation(report, run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    header, row = table_of(report, "HD95 (px)")
    cells = dict(zip((title.strip() for title in header), row, strict=True))
    assert cells["Run"].strip() == "sks-evidence, seed 0"
    low, high = evaluation["dice_lesion_ci"]
    assert cells["Dice, lesion images"].split() == [
        f"{evaluation['dice_lesion']:.3f}",
        f"{low:.3f}",
        "to",
        f"{high:.3f}",
    ]
    assert cells["HD95 (px)"].strip() == f"{evaluation['hd95_lesion']:.1f}"
    counts = evaluation["counts"]
    assert f"{counts['missed_lesion_images']} lesion image" in report.text


def test_the_protocol_names_what_is_needed_to_repeat(report):
    protocol = {row[0].strip(): row[1].strip() for row in report.tables[-1][1:]}
    assert protocol["Masks used in training"] == "1"
    assert protocol["Images"] == "1 train, 15 test"
    assert "test_efficientnet" in protocol["Network"]
    assert protocol["Versions"] == "dxseg 0.1.0"
    assert protocol["Seed"].startswith("0;")


def test_no_name_or_path_of_a_case_is_shown(report, run):
    text = (run / "report.html").read_text(encoding="utf-8")
    for secret in ("MRN-SECRET", "home-of-dr-x", str(run), "/images/"):
        assert secret not in text


def test_names_from_outside_are_text_and_never_markup(make_run):
    hostile = "<script>alert(1)</script>'\"&"
    run = make_run(method="<b>bold</b>", label=hostile, provenance="<img src=x onerror=alert(1)>")
    build_report(run)
    parsed = page(run / "report.html")
    assert not parsed.all("script")
    assert not parsed.all("b")
    assert not parsed.all("i")
    assert "set & <i>match</i>" in parsed.text
    assert "<b>bold</b>, seed 0" in parsed.text
    assert "<img src=x onerror=alert(1)>" in parsed.text
    alts = " ".join(str(image["alt"]) for image in parsed.all("img"))
    assert hostile in alts


@pytest.mark.parametrize(
    ("provenance", "expected"), [("Synthetic Phantom, made here", True), ("a scanner", False)]
)
def test_phantoms_are_called_phantoms(make_run, provenance, expected):
    run = make_run(provenance=provenance)
    build_report(run)
    parsed = page(run / "report.html")
    notes = [one for one in parsed.all("p") if one.get("class") == "notice"]
    assert bool(notes) is expected
    assert ("These are phantoms" in parsed.text) is expected


def test_compared_runs_have_a_row_each_and_paired_differences(run, make_run):
    control = make_run(method="unet", seed=0)
    build_report(run, compared=[control])
    parsed = page(run / "report.html")
    short = table_of(parsed, "Lesions found", "This method minus it")
    assert [row[0].strip() for row in short[1:]] == ["sks-evidence, seed 0", "unet, seed 0"]
    differences = table_of(parsed, "Difference and 95% interval")[1:]
    assert {row[0].strip() for row in differences} == {"unet"}
    assert {row[1].strip() for row in differences} >= {
        "Dice, lesion images",
        "Lesions found",
        "Sensitivity",
        "False-positive area (px)",
    }
    own, other = (
        pd.read_csv(one / "per_image.csv").query("true_area > 0")["dice"].mean()
        for one in (run, control)
    )
    value, low, _, high = differences[0][2].replace("(", "").replace(")", "").split()
    assert float(value) == pytest.approx(own - other, abs=6e-4)
    assert float(low) <= float(value) <= float(high)
    assert f"{value} ({low} to {high})" in short[2][2]
    assert "Against unet. Better: " in parsed.text
    decided = table_of(parsed, "With a mask")[1:]
    assert [row[0].strip() for row in decided] == [
        *["sks-evidence, seed 0"] * 2,
        *["unet, seed 0"] * 2,
    ]


def test_a_run_without_a_control_is_told_how_to_get_one(report):
    assert "Too few test lesions to conclude anything." in report.text
    assert "No other method was evaluated on the same images." in report.text
    assert "Trained with 1 mask." in report.text
    assert "Tested on 11 images with a lesion, of 11 patients or groups, and on 4" in report.text


def test_runs_of_other_test_cases_are_not_put_side_by_side(run, make_run):
    with pytest.raises(DxsegError, match=r"test cases|differ"):
        build_report(run, compared=[make_run(method="unet", images=12)])


def test_what_is_missing_is_reported_with_the_remedy(make_run, tmp_path):
    run = make_run(seed=9, evaluate=False)
    with pytest.raises(DxsegError, match="dxseg evaluate"):
        build_report(run)
    with pytest.raises(DxsegError, match=r"run\.json"):
        build_report(tmp_path)
    assert not (run / "report.html").exists()


def test_a_run_without_curves_is_reported_as_such(make_run):
    run = make_run(seed=11)
    for stage in ("stage1", "stage2"):
        (run / stage / "metrics.csv").unlink()
    build_report(run)
    assert "No metrics were logged" in page(run / "report.html").text


def test_a_moved_dataset_can_be_named(make_run, tmp_path):
    run = make_run(seed=12)
    record = json.loads((run / "run.json").read_text())
    data = record["dataset"]
    (run / "run.json").write_text(json.dumps(record | {"dataset": str(tmp_path / "gone")}))
    with pytest.raises(DxsegError, match="gone"):
        build_report(run)
    assert build_report(run, dataset=Path(data)).is_file()


def test_the_command_takes_a_moved_dataset(make_run, tmp_path):
    run = make_run(seed=13)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"dataset": str(tmp_path / "gone")}))
    assert report_command(run, dataset=record["dataset"]).path.is_file()


def curves_height(text: str) -> int:
    """Height of the picture of the curves: a row per stage."""
    [source] = [
        str(attributes["src"])
        for attributes in Page(text).all("img")
        if str(attributes["alt"]).startswith("Loss at the left")
    ]
    return Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).height


def test_stages_after_stage_2_are_shown(make_run):
    """Curves and lengths are those of every stage, the student's of the default method too."""
    run = make_run()
    before = build_report(run).read_text(encoding="utf-8")
    (run / "student").mkdir()
    (run / "student" / "metrics.csv").write_text((run / "stage2" / "metrics.csv").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"student": {"steps": 450}}))
    record = json.loads((run / "run.json").read_text())
    record["seconds"] |= {"student": 3.0}
    record |= {"stage2": {"step": 152.0}, "student_from": None}
    (run / "run.json").write_text(json.dumps(record))
    after = build_report(run).read_text(encoding="utf-8")
    assert "Student" not in before
    assert "Stage 2: 152 steps, Student: 450 steps; batches of " in after
    assert curves_height(after) * 2 == curves_height(before) * 3


def test_a_stage_of_another_run_has_no_length(make_run):
    run = make_run()
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"stage2_from": "/elsewhere"}))
    text = build_report(run).read_text(encoding="utf-8")
    assert "Stage 2: of another run" in text
    assert "elsewhere" not in text
