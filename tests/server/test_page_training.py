"""Training on the page: from the button to the new model, in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import PATIENCE, Picture
from retrained import FIRST, SECOND, Loop
from serving import TOKEN, until

pytestmark = pytest.mark.slow  # test_page is always run

pytest.importorskip("fastapi")


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop(tmp_path, monkeypatch)
    made.save("case1")
    return made


@pytest.fixture
def open_page(browser: Any, start_server: Callable[..., Any], loop: Loop) -> Iterator[Any]:
    """Tabs of one server that trains; nothing may go wrong in them."""
    trainer = loop.trainer()
    served = start_server(trainer=trainer, token=TOKEN, model={"digest": FIRST})
    opened: list[Picture] = []

    def make() -> Picture:
        opened.append(Picture.open(browser, f"{served.url}/#token={TOKEN}"))
        return opened[-1]

    yield make
    for tab in opened:
        tab.close()


def holds(picture: Picture, place: str, text: str) -> None:
    from playwright.sync_api import expect

    expect(picture.page.locator(place)).to_contain_text(text, timeout=PATIENCE)


def test_a_training_from_its_button_to_the_model_in_use_and_back(
    open_page: Any, loop: Loop
) -> None:
    first = open_page()
    page = first.page
    holds(first, "#train-model", f"{FIRST[:12]}, 1 masks, 2026-01-02, Dice 0.500 (0.250 to 0.750)")
    holds(first, "#train-state", "1 new mask since.")
    second = open_page()
    holds(second, "#train-state", "1 new mask since.")
    page.click("#train")
    holds(first, "#train-state", "Training with 2 masks")
    second.page.click("#train")  # the other tab still shows the button
    holds(second, "#problem", "a training is running")
    holds(second, "#train-state", "Training with 2 masks")
    loop.order("step 50")
    holds(first, "#train-state", "masks, step 50 of 150")
    assert page.locator("#train-progress").evaluate("one => one.value") == pytest.approx(0.95 / 3)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    assert [one["id"] for one in axe.Axe().run(page).response["violations"]] == []
    loop.order("finish")
    holds(first, "#train-offer", f"New model: {SECOND[:12]}")
    holds(first, "#train-offer", "+0.100 (\N{MINUS SIGN}0.100 to +0.300) on the same 2 images")
    holds(second, "#train-offer", f"New model: {SECOND[:12]}")
    page.click("#train-use")
    holds(first, "#train-model", SECOND[:12])
    holds(first, "#model", SECOND[:12])
    first.says("is in use from the next case on")
    second.page.click("#train-use")  # taken in the other tab already
    holds(second, "#problem", "neither offered nor the previous one")
    holds(second, "#train-model", SECOND[:12])
    page.click("#train-back")
    holds(first, "#model", FIRST[:12])


def test_a_training_is_cancelled_only_when_that_is_confirmed_and_continued_after_a_failure(
    open_page: Any, loop: Loop
) -> None:
    picture = open_page()
    page = picture.page
    loop.order("fail the disk is full; free some space")
    page.click("#train")
    holds(picture, "#train-state", "has stopped: the disk is full; free some space")
    loop.order("step 100")
    assert page.inner_text("#train") == "Continue"
    page.click("#train")
    holds(picture, "#train-state", "step 100 of 150")
    page.click("#train-cancel")
    page.click("#question-no")
    holds(picture, "#train-state", "step 100 of 150")
    page.click("#train-cancel")
    page.click("#question-yes")
    holds(picture, "#train-state", "1 new mask since.")
    assert list(loop.folder.glob("0*")) == []


def test_an_error_of_a_poll_goes_when_the_server_is_back(open_page: Any) -> None:
    picture = open_page()
    holds(picture, "#train-state", "1 new mask since.")
    poll = "document.dispatchEvent(new Event('visibilitychange'))"
    picture.page.route("**/v1/training", lambda route: route.abort())
    picture.page.evaluate(poll)
    holds(picture, "#problem", "cannot be reached")
    picture.page.unroute("**/v1/training")
    picture.page.evaluate(poll)
    until(lambda: picture.page.wait_for_timeout(20) or not picture.page.inner_text("#problem"))


def test_what_a_click_is_refused_for_stays_after_a_poll_has_failed(
    open_page: Any, loop: Loop
) -> None:
    picture = open_page()
    page = picture.page
    holds(picture, "#train-state", "1 new mask since.")
    page.route("**/v1/training", lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    holds(picture, "#problem", "cannot be reached")
    page.unroute("**/v1/training")
    open_page().page.click("#train")
    until(lambda: bool(loop.starts()))
    with page.expect_response(lambda response: response.request.method == "GET"):
        page.click("#train")
    holds(picture, "#train-state", "Training with 2 masks")
    holds(picture, "#problem", "a training is running")


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        ("self_training", "pseudo-labels"),
        ("student", "student network"),
        ("student2", "student network 2"),
    ],
)
def test_each_stage_has_a_name(open_page: Any, phase: str, name: str) -> None:
    picture = open_page()
    holds(picture, "#train-state", "1 new mask since.")
    progress = {"phase": phase, "step": 5, "steps": 50, "fraction": 0.5}

    def run(route: Any) -> None:
        status = route.fetch().json()
        route.fulfill(json=status | {"state": "running", "masks": 2, "progress": progress})

    picture.page.route("**/v1/training", run)
    picture.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    holds(picture, "#train-state", f"Training with 2 masks: {name}, step 5 of 50")
    picture.page.unroute_all(behavior="wait")


def test_a_server_that_does_not_train_shows_nothing_of_it(picture: Picture) -> None:
    picture.page.locator("#queue button").first.wait_for()
    assert picture.page.locator("#training").is_hidden()
