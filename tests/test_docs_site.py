"""The documentation's site: it builds offline, and what its pages tell to do can be done."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dxseg
from browsing import chromium
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.phantoms.ultrasound import make_phantoms
from extras import need_ray
from following import ROOT, blocks, follow
from plain_backbone import plain_convolutions

DOCS = ROOT / "docs"
SMALL_SET = {"images=300, size=128": "images=24, size=64"}
SMALL_SPLIT = {"--masks 24 --validation-masks 8": "--masks 6 --validation-masks 2"}

TINY = {
    "data": {"image_size": 64, "batch_size": 4},
    "model": {"decoder_channels": [8, 8, 8, 8, 8]},
    "stage1": {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1},
    "stage2": {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1},
}

FEW_LAYERS = plain_convolutions.__name__

Follow = Callable[..., list[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def do(cli: Any, tiny: Any, here: Path) -> Follow:
    """Follow a page in an empty folder, with tiny trainings."""
    return lambda page, **smaller: follow(DOCS / page, cli, tiny(), **smaller)


def test_the_tutorial(do: Follow, here: Path) -> None:
    assert do("tutorial/phantoms.md", smaller=SMALL_SET | SMALL_SPLIT) == []
    assert (here / "runs" / "method" / "report.html").is_file()
    assert len(list((here / "predictions" / "masks").glob("*.png"))) == 24


@pytest.mark.slow
def test_how_to_train_in_a_loop_of_ones_own(do: Follow, here: Path) -> None:
    smaller = {"size=128": "size=64", "128, 128)": "64, 64)", "range(100)": "range(2)"}
    smaller |= {"range(150)": "range(2)", "arange(120)": "arange(24)"}
    # torch.export takes its time for every layer.
    smaller |= {
        '"tf_efficientnet_lite0", labels=3, i': f'"{FEW_LAYERS}", 3, encoder_weights=None, i'
    }
    assert do("how-to/own-loop.md", smaller=smaller) == []
    assert (here / "sks.pt2").is_file()


@pytest.mark.slow
def test_how_to_train_on_busi(do: Follow, here: Path) -> None:
    make_busi(here / "Dataset_BUSI_with_GT")
    assert do("how-to/busi.md", smaller={"--masks 35": "--masks 6"}) == []
    assert (here / "runs" / "method-0" / "report.html").is_file()


@pytest.mark.slow
def test_how_to_work_with_few_masks(do: Follow, here: Path) -> None:
    smaller = {
        "images=300, size=128": "images=60, size=64",
        "[:30]": "[:12]",
        "folds: 5": "folds: 2",
    }
    smaller |= {", unet-stage1-student]": "]"}
    smaller |= {"set: {}": f"set: {json.dumps(TINY)}"}
    assert do("how-to/few-masks.md", smaller=smaller) == []
    results = pd.read_csv(here / "runs" / "experiment" / "results.csv")
    assert list(results["status"]) == ["done"] * 4
    tested = results.groupby("method")["lesion_images"].sum()
    assert set(tested) == {12}, "each mask is a test mask once"
    final = json.loads((here / "runs" / "final" / "run.json").read_text("utf-8"))
    assert final["cases"]["train_masks"] + final["cases"]["validation_masks"] == 12


@pytest.mark.slow
def test_how_to_use_ct_volumes(do: Follow, here: Path) -> None:
    assert do("how-to/ct-volumes.md") == []
    levels = dxseg.info("data/lits")["labels"]
    assert levels == {"no tumour": 24, "tumour": 36}


FEW_SCANS = {
    "SIZE = 64": "SIZE = 48",
    "range(60)": "range(24)",
    "28 <= number < 31": "8 <= number < 10",
    "48 <= number < 50": "12 <= number < 14",
    "number < 28": "number < 12",
    "--masks 35": "--masks 4",
    "--validation-masks 5": "--validation-masks 1",
}


@pytest.mark.slow
def test_lits_until_its_35_scans_are_chosen(cli: Any, here: Path) -> None:
    page = (DOCS / "how-to/lits.md").read_text("utf-8")
    (here / "half.md").write_text(page.split("## The experiment")[0], "utf-8")
    assert follow(here / "half.md", cli, [], smaller=FEW_SCANS) == []
    told = dxseg.info("data/lits")
    assert (told["volumes"], told["patients"], told["masks"] > 0) == (26, 0, True)
    cases = pd.read_csv("data/lits/cases.csv", keep_default_na=False).set_index("case_id")
    splits = pd.read_csv("splits.csv", keep_default_na=False).set_index("case_id")
    train = cases[splits["split"].eq("train") & splits["use_mask"] & cases["mask"].ne("")]
    assert train["volume_id"].nunique() == 4
    hidden = splits["split"].eq("train") & ~splits["use_mask"] & cases["label"].ne("")
    assert set(splits.loc[hidden, "label_level"]) == {"study"}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five methods
def test_lits_to_a_prediction(do: Follow, here: Path) -> None:
    smaller = FEW_SCANS | {
        "masks: [35]": "masks: [4]",
        "validation_masks: 5": "validation_masks: 1",
        "data: {image_size: 256}\n  stage1: {steps: 900, steps_per_epoch: 300}": "\n  ".join(
            f"{k}: {json.dumps(v)}" for k, v in TINY.items()
        ),
        "35-masks": "4-masks",
    }
    for name in ("unet-stage1-selftrained", "sks-student", "unet-stage1-student"):
        last = {"self_training" if "selftrained" in name else "student": TINY["stage2"]}
        short = json.dumps({"name": name, "base_method": name, "set": last})
        smaller[f"  - {name} "] = f"  - {short} "
    assert do("how-to/lits.md", smaller=smaller) == []
    results = pd.read_csv("runs/lits/results.csv")
    assert list(results["status"]) == ["done"] * 5
    assert len(list((here / "predictions" / "masks").glob("test-volume-?.nii.gz"))) == 2


@pytest.mark.slow
def test_how_to_predict_an_archive(do: Follow, here: Path) -> None:
    need_ray()
    smaller = SMALL_SET | {"--masks 24": "--masks 6"}
    assert do("how-to/archive.md", smaller=smaller) == []
    table = pd.read_parquet(here / "results" / "results")
    assert len(table) == table["name"].nunique() == 24
    assert len(list(here.glob("*.png"))) == 3


@pytest.mark.slow
def test_how_to_use_a_pacs_export(do: Follow, here: Path) -> None:
    make_export(here / "export")
    [table] = [b.text for b in blocks(DOCS / "how-to/dicom.md") if b.language == "text"]
    (here / "diagnoses.csv").write_text(table)
    assert do("how-to/dicom.md", smaller={"--masks 35": "--masks 4"}) == []
    assert (here / "runs/method/report.html").is_file()
    told = dxseg.info("data/thyroid")
    assert (told["labels"], told["patients"]) == ({"benign": 12, "normal": 12}, 24)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two trainings that learn something
def test_how_to_correct_masks_and_train_again(cli: Any, here: Path) -> None:
    """The guide's first half, three masks corrected through the server, and its second half."""
    pytest.importorskip("fastapi")
    page = (DOCS / "how-to/annotate.md").read_text("utf-8")
    before, after = page.split("## 2. ")
    for name, text in (("first.md", before), ("second.md", after)):
        (here / name).write_text(text, "utf-8")
    learns = ["--set", "data.image_size=64", "--set", "model.decoder_channels=[16,16,8,8,8]"]
    for stage, steps in (("stage1", 60), ("stage2", 150), ("student", 150)):
        learns += ["--set", f"{stage}.steps={steps}", "--set", f"{stage}.steps_per_epoch=50"]
    assert follow(here / "first.md", cli, learns) == []
    truth = make_phantoms(here / "truth", images=112, size=64)
    corrected = correct(here / "runs/first", here / "phantoms", truth, count=3)
    assert len(corrected) == 3
    assert follow(here / "second.md", cli, learns) == []

    def read(name: str) -> list[dict[str, Any]]:
        runs = (here / "runs" / run / name for run in ("first", "second"))
        return [json.loads(path.read_text("utf-8")) for path in runs]

    first, second = (run["cases"]["train_masks"] for run in read("run.json"))
    assert second == first + 3
    assert min(evaluation["dice_lesion"] for evaluation in read("evaluation.json")) > 0.3


def correct(run: Path, root: Path, truth: Dataset, count: int) -> list[str]:
    """Save true masks of the next training cases as the page does."""
    from starlette.testclient import TestClient

    from dxseg.inference.predictor import Predictor
    from dxseg.server.app import create_app
    from dxseg.server.case_queue import CaseQueue
    from dxseg.server.schemas import run_lengths
    from dxseg.server.settings import Settings

    predictor = Predictor.from_folder(run / "model")
    app = create_app(predictor, Settings(token="a" * 32), cases=CaseQueue(root, predictor.info))
    rows = truth.cases.set_index("case_id", drop=False)
    with TestClient(app, headers={"Authorization": "Bearer " + "a" * 32}) as client:
        queue = client.get("/v1/cases").json()["cases"]
        for one in queue[:count]:
            name = one["case_id"]
            asked = {"case_id": name, "label_prompt": one["label"]}
            assert client.post("/v1/cases/predict", json=asked).is_success
            path = truth.mask_path(rows.loc[name])
            assert path is not None
            runs = run_lengths(read_mask(path, 1) > 0).model_dump()
            mask = {"case_id": name, "role": "other", "mask": {"lesion": runs}}
            assert client.post("/v1/cases/mask", json=mask).is_success
    return [one["case_id"] for one in queue[:count]]


@pytest.mark.slow
def test_how_to_use_another_backbone(do: Follow, here: Path, phantoms: Path) -> None:
    shutil.copytree(phantoms, here / "phantoms")
    do("how-to/backbone.md", smaller={"--masks 24": "--masks 6"})
    assert dxseg.info("runs/resnet/model")["model"]["backbone"] == "resnet10t"


@pytest.mark.slow
def test_how_to_work_without_a_hub(do: Follow, here: Path, phantoms: Path) -> None:
    shutil.copytree(phantoms, here / "phantoms")
    others = do("how-to/offline.md", smaller={"--masks 24": "--masks 6"})
    named = [["pip", "wheel"], ["pip", "install"], ["python", "-c"]]
    assert [line.split()[:2] for line in others] == named


@pytest.mark.slow
def test_how_to_read_the_report(do: Follow, here: Path, trained: Path) -> None:
    for run in ("method", "control"):
        shutil.copytree(trained, here / "runs" / run)
    record = here / "runs" / "control" / "run.json"
    changed = json.loads(record.read_text("utf-8")) | {"method": "control"}
    record.write_text(json.dumps(changed), "utf-8")
    assert do("how-to/report.md") == []


def test_the_table_of_empty_masks(do: Follow) -> None:
    assert do("explanation/evaluation-rules.md") == []


@pytest.mark.slow
def test_the_python_page(do: Follow, here: Path, phantoms: Path) -> None:
    (here / "phantoms").symlink_to(phantoms)
    assert do("reference/python.md") == []


@pytest.mark.slow
def test_the_trial_in_the_guide_to_methods(do: Follow, here: Path, phantoms: Path) -> None:
    shutil.copytree(phantoms, here / "phantoms")
    assert do("contributing/method.md", smaller={"--masks 24": "--masks 6"}) == []
    assert dxseg.info("runs/no-long")["method"] == "sks-no-long"


def test_every_new_page_with_something_to_do_is_followed() -> None:
    # Followed by tests/training/test_strategy.py and test_guides.py.
    elsewhere = {"how-to/cluster.md", "contributing/skip.md"}
    followed = elsewhere | set(
        re.findall(r'"([a-z-]+/[a-z-]+\.md)"', Path(__file__).read_text("utf-8"))
    )
    to_do = {
        page.relative_to(DOCS).as_posix()
        for page in DOCS.glob("*/*.md")
        if any(not block.title and block.language != "text" for block in blocks(page))
    }
    assert to_do <= followed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//|"
        r"<link[^>]+href=[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//|@import\s+[\"'u]"
    )
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 20
    assert [path.name for path in files if loaded.search(path.read_text("utf-8"))] == []
    assert "googleapis" not in (site / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_the_search_works_without_a_server(site: Path) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto((site / "index.html").as_uri())
        page.locator("input[name=query]").fill("thirty masks fold")
        page.locator(".md-search-result__link", has_text="masks").first.wait_for(timeout=30_000)
        found = page.locator(".md-search-result__link").first.get_attribute("href")
        assert found is not None
        assert found.startswith("file:")


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text("utf-8")
    documented = set(re.findall(r'id="dxseg\.(?:\w+\.)+(\w+)"', page))
    assert set(dxseg.__all__) - {"__version__"} - documented == set()


def test_the_picture_is_what_its_script_draws(tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "images" / "dual_u.py"))
    script["main"](tmp_path / "drawn.svg")
    drawn, kept = (
        re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text("utf-8"))
        for path in (tmp_path / "drawn.svg", DOCS / "images" / "dual_u.svg")
    )
    assert drawn == kept
    assert {"c, 1/32", "d, 1/4", "evidence maps", "mask"} <= set(kept)


def make_busi(folder: Path) -> None:
    """Phantoms in BUSI's layout."""
    from PIL import Image

    from dxseg.phantoms.ultrasound import label_of, make_phantom

    for number in range(1, 25):
        label = label_of(number)
        image, mask = make_phantom(label, size=64, seed=(0, number))
        stem = folder / label / f"{label} ({number})"
        stem.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"{stem}.png")
        Image.fromarray(mask * np.uint8(255)).save(f"{stem}_mask.png")


def make_export(folder: Path) -> None:
    """Ultrasound of 24 patients, twelve under each number of the page's table, lesions outlined."""
    from dicom_phantom import make_image, plain_segmentation, save
    from dxseg.phantoms.ultrasound import make_phantom

    for number in range(24):
        benign = number < 12
        name = "benign" if benign else "normal"
        pixels, mask = make_phantom(name, size=64, seed=(0, number))
        owner = {"PatientID": f"P{number}", "AccessionNumber": "A0" if benign else "A1"}
        image = make_image(pixels, **owner)
        save(image, folder / f"{number:03}.dcm")
        if benign:
            save(plain_segmentation(image, mask), folder / f"{number:03}-mask.dcm")
