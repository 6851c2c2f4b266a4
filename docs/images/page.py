"""Draw docs/images/page.png: the web page with a phantom and the method that `make demo` trains.

PYTHONPATH=tests python docs/images/page.py dxseg-demo
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
from PIL import Image

from browsing import Picture, chromium
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import find_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.server.case_queue import CaseQueue
from dxseg.server.settings import Settings
from dxseg.server.uvicorn_server import address, listen, make_server

TOKEN = "for-this-picture-only"
RUN, PHANTOMS = "sks-selftrained", "phantoms"
STROKE = [(0.13, 0.52), (0.22, 0.56), (0.34, 0.56)]
"""Points of the brush stroke, as fractions of the image's sides."""


def draw(demo: Path) -> None:
    """Open the first case, correct it, and take a screenshot."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = restrict_masks(demo, Path(folder) / PHANTOMS)
        predictor = Predictor.from_folder(find_model_folder(demo / RUN))
        server = make_server(
            predictor, Settings(token=TOKEN), cases=CaseQueue(dataset.root, predictor.info)
        )
        listening = listen("127.0.0.1", 0)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            take(f"{address(listening)}/#token={TOKEN}", Path(__file__).with_suffix(".png"))
        finally:
            server.should_exit = True
            thread.join()


def restrict_masks(demo: Path, folder: Path) -> Dataset:
    """Copy the phantoms with the masks that the demo was trained on, and no others."""
    shutil.copytree(demo / PHANTOMS, folder)
    dataset = Dataset.load(folder)
    splits = pd.read_csv(demo / RUN / "splits.csv", index_col="case_id")
    used = splits.loc[dataset.cases["case_id"], "use_mask"].to_numpy()
    dataset.cases["split"] = splits.loc[dataset.cases["case_id"], "split"].to_numpy()
    dataset.cases.loc[~used, "mask"] = ""
    dataset.save()
    return dataset


def take(url: str, target: Path) -> None:
    """Perform the steps on the page and take the screenshot."""
    with chromium() as browser:
        shown = Picture.open(browser, url)
        shown.page.click("#next")
        shown.says("Predicted")
        shown.page.check("#show-heat")
        shown.page.fill("#opacity", "40")
        shown.page.click("[data-tool=brush]")
        side = shown.page.locator("#view").bounding_box()["height"] / shown.scale()
        shown.drag([(x * side, y * side) for x, y in STROKE])
        shown.page.select_option("#role", "radiologist")
        shown.page.screenshot(path=target)
    Image.open(target).quantize(256, Image.Quantize.FASTOCTREE).save(target, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
