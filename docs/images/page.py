"""Draw docs/images/page.png: the page on a phantom, with the first run of the guide annotate.md.

PYTHONPATH=tests python docs/images/page.py RUN PHANTOMS
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from PIL import Image

from browsing import Picture, chromium
from dxseg.deploy.cases import Cases
from dxseg.deploy.run import address, listen, make_server
from dxseg.deploy.settings import Settings
from dxseg.inference.bundle import bundle_folder
from dxseg.inference.predictor import Predictor

TOKEN = "for-this-picture-only"


def draw(run: str, phantoms: str) -> None:
    """Open the first case, correct it, and take the picture."""
    predictor = Predictor.from_bundle(bundle_folder(run))
    cases = Cases(phantoms, predictor.info)
    listening = listen("127.0.0.1", 0)
    server = make_server(predictor, Settings(token=TOKEN), cases=cases)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    try:
        with chromium() as browser:
            shown = Picture.open(browser, f"{address(listening)}/#token={TOKEN}")
            shown.page.click("#next")
            shown.says("Predicted")
            shown.page.check("#show-heat")
            shown.page.fill("#opacity", "40")
            shown.page.click("[data-tool=brush]")
            shown.drag([(20, 40), (30, 44)])
            shown.page.select_option("#role", "radiologist")
            target = Path(__file__).with_suffix(".png")
            shown.page.screenshot(path=target)
            Image.open(target).quantize(128).save(target, optimize=True)
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    draw(*sys.argv[1:])
