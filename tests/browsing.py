"""What tests in a browser share: Chromium, and the page with its picture in pixels of the image."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no windows: a page takes a third less processor time."""
PATIENCE = 120_000
"""Milliseconds: a busy machine is no failure."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's browser, without a window; skip the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser; looked for {', '.join(NAMES)} (Debian: apt install {NAMES[0]})")
    with sync_api.sync_playwright() as playwright:
        # As root, as in containers, Chromium refuses its own sandbox; it opens only our page.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@dataclass(frozen=True)
class Picture:
    """The page of a server, opened."""

    page: Any
    messages: list[str]

    @classmethod
    def open(cls, browser: Any, url: str, **context: Any) -> Picture:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **context)
        page.set_default_timeout(PATIENCE)
        messages: list[str] = []
        page.on("console", lambda told: messages.append(f"{told.type}: {told.text}"))
        page.on("pageerror", lambda error: messages.append(f"error: {error}"))
        page.goto(url)
        return cls(page, messages)

    def close(self) -> None:
        """Close the page, which has had no error of its own."""
        wrong = [told for told in self.messages if told.startswith("error")]
        self.page.close()
        assert [told for told in wrong if "Failed to load resource" not in told] == []

    def says(self, text: str) -> None:
        """Wait until the page's status holds a text."""
        from playwright.sync_api import expect

        expect(self.page.locator("#status")).to_contain_text(text, timeout=PATIENCE)

    def drop(self, path: Path) -> None:
        """Drop a file on the picture, as from a file manager."""
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        transfer = self.page.evaluate_handle(
            """([content, name]) => {
                const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name));
                return transfer;
            }""",
            [content, path.name],
        )
        self.page.locator("#view").dispatch_event("drop", {"dataTransfer": transfer})

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where on the screen a place of the image is, in pixels."""
        view = self.page.locator("#view")
        view.scroll_into_view_if_needed()
        box = view.bounding_box()
        place = view.evaluate("element => ({...element.dataset})")
        scale = float(place["scale"])
        return box["x"] + float(place["x"]) + scale * x, box["y"] + float(place["y"]) + scale * y

    def scale(self) -> float:
        """Pixels of the screen to a pixel of the image."""
        return float(self.page.locator("#view").get_attribute("data-scale"))

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Draw with the mouse through places of the image."""
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=4)
        mouse.up()

    def touch(self, *paths: Sequence[tuple[float, float] | None]) -> None:
        """Move fingers over places of the image, one a path; a later finger starts at its own step.

        Args:
            paths: Of one length; None where a finger does not touch the picture yet.
        """
        # Where the places are now: the picture may move under the fingers.
        seen = [[None if place is None else self.at(*place) for place in path] for path in paths]
        send = self.page.context.new_cdp_session(self.page).send
        before = 0
        for step in zip(*seen, strict=True):
            points = [
                {"x": place[0], "y": place[1], "id": number}
                for number, place in enumerate(step)
                if place is not None
            ]
            kind = "touchStart" if len(points) > before else "touchMove"
            send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            before = len(points)
        send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def pen(
        self,
        points: Sequence[tuple[float, float]],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Draw with a pen through places of the image.

        Args:
            points: The places.
            meanwhile: Done at the last place, before the pen is lifted.
        """
        session = self.page.context.new_cdp_session(self.page)
        seen = [self.at(*point) for point in points]

        def send(kind: str, place: tuple[float, float], buttons: int) -> None:
            told = {"button": "left", "buttons": buttons, "clickCount": 1, "pointerType": "pen"}
            session.send(
                "Input.dispatchMouseEvent", {"type": kind, "x": place[0], "y": place[1], **told}
            )

        send("mousePressed", seen[0], 1)
        for place in seen[1:]:
            send("mouseMoved", place, 1)
        meanwhile()
        send("mouseReleased", seen[-1], 0)

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def color(self, x: float, y: float) -> tuple[int, int, int]:
        """The color on the screen at a place of the image.

        A line of 2 pixels through the place covers the pixel that holds it wholly, the
        neighbours perhaps in part.
        """
        import io

        from PIL import Image

        at_x, at_y = self.at(x, y)
        clip = {"x": floor(at_x) - 1, "y": floor(at_y) - 1, "width": 3, "height": 3}
        shot = Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")
        return shot.getpixel((1, 1))

    def area(self) -> int:
        """Pixels of the mask, as the page tells them."""
        return int(self.page.locator("#areas td").first.inner_text().split()[0])
