"""Draw docs/images/demo.png: verdict, worst phantoms and first table of the report of `make demo`.

PYTHONPATH=tests python docs/images/demo.py dxseg-demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from browsing import chromium
from dxseg.commands.demo import METHODS

REPORT = f"{METHODS[0]}/report.html"
WIDTH = 1000


def draw(demo: Path) -> None:
    """Take the picture from the verdict to the first table, of the pictures only the worst."""
    target = Path(__file__).with_suffix(".png")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto((demo / REPORT).resolve().as_uri())
        page.evaluate(
            "document.querySelectorAll('section[aria-labelledby=gallery] h3 ~ h3, "
            "section[aria-labelledby=gallery] .row ~ .row').forEach(element => element.remove())"
        )
        top = page.locator("#verdict").bounding_box()
        end = page.locator("#failures").bounding_box()
        clip = {"x": 0, "y": top["y"] - 12, "width": WIDTH, "height": end["y"] - top["y"]}
        page.screenshot(path=target, full_page=True, clip=clip)
    Image.open(target).quantize(256, Image.Quantize.FASTOCTREE).save(target, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
