"""The bounded queue: everything accepted is answered, in batches, and nothing more is accepted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from brightness import Maker, bright_square
from dxseg.errors import DxsegError
from dxseg.server.worker import QueueFullError, StoppingError, Worker
from serving import until


class Held:
    """A predictor whose network waits until it may go on."""

    def __init__(self) -> None:
        self.maker = Maker()
        self.predictor = self.maker(batch_size=4, lesion_free=("normal",))
        self.may_go, self.waits = threading.Event(), threading.Event()
        outputs = self.predictor.backend.forward

        def waiting(*arguments: Any) -> Any:
            self.waits.set()
            assert self.may_go.wait(60)
            return outputs(*arguments)

        self.predictor.backend.forward = waiting  # type: ignore[method-assign]

    @property
    def batches(self) -> list[int]:
        return [shape[0] for shape in self.maker.networks[-1].batches]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def start(held: Held) -> Iterator[Callable[[int], Worker]]:
    workers: list[Worker] = []

    def make(capacity: int) -> Worker:
        workers.append(Worker(capacity, 2**27))
        return workers[-1]

    yield make
    held.may_go.set()
    for worker in workers:
        worker.stop()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(bright_square(32, 32)[:, :, 0]).save(path)
    return path


def test_what_waits_is_predicted_in_batches(
    held: Held, start: Callable[[int], Worker], image: Path
) -> None:
    worker = start(20)
    futures = [worker.submit(held.predictor, image, "")]
    assert held.waits.wait(60)
    futures += [worker.submit(held.predictor, image, "") for _ in range(9)]
    assert worker.in_flight == 10
    held.may_go.set()
    assert [int(future.result(60).mask.sum()) for future in futures] == [64] * 10
    assert held.batches == [1, 4, 4, 1]
    until(lambda: worker.in_flight == 0)


def test_no_more_than_the_capacity_is_in_hand(
    held: Held, start: Callable[[int], Worker], image: Path
) -> None:
    worker = start(3)
    futures = [worker.submit(held.predictor, image, "")]
    assert held.waits.wait(60)
    futures += [worker.submit(held.predictor, image, "") for _ in range(2)]
    assert worker.full
    with pytest.raises(QueueFullError):
        worker.submit(held.predictor, image, "")
    held.may_go.set()
    for future in futures:
        future.result(60)
    until(lambda: not worker.full)
    assert worker.submit(held.predictor, image, "").result(60).mask.any()


def test_an_image_that_is_inspected_counts(
    held: Held, start: Callable[[int], Worker], image: Path
) -> None:
    worker = start(1)
    with worker.inspecting(), pytest.raises(QueueFullError):
        worker.submit(held.predictor, image, "")
    with pytest.raises(ValueError, match="no image"), worker.inspecting():
        raise ValueError("no image")
    assert worker.in_flight == 0
    worker.submit(held.predictor, image, "")
    with pytest.raises(QueueFullError), worker.inspecting():
        pass


def test_stopping_finishes_what_is_in_hand(
    held: Held, start: Callable[[int], Worker], image: Path
) -> None:
    worker = start(20)
    futures = [worker.submit(held.predictor, image, "") for _ in range(7)]
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    until(lambda: refuses(worker, held, image))
    held.may_go.set()
    stopping.join(60)
    assert all(future.done() and future.result().mask.any() for future in futures)
    assert not worker.alive
    worker.stop()


def refuses(worker: Worker, held: Held, image: Path) -> bool:
    try:
        worker.submit(held.predictor, image, "").cancel()
    except StoppingError:
        return True
    return False


def test_what_nobody_waits_for_any_more_is_passed_over(
    held: Held, start: Callable[[int], Worker], image: Path
) -> None:
    worker = start(20)
    first = worker.submit(held.predictor, image, "")
    assert held.waits.wait(60)
    given_up, wanted = (
        worker.submit(held.predictor, image, ""),
        worker.submit(held.predictor, image, ""),
    )
    assert given_up.cancel()
    assert worker.in_flight == 2
    held.may_go.set()
    assert first.result(60).mask.any()
    assert wanted.result(60).mask.any()
    assert held.batches == [1, 1]


def test_each_gets_its_own_answer(
    held: Held, start: Callable[[int], Worker], image: Path, tmp_path: Path
) -> None:
    held.may_go.set()
    worker = start(20)
    (tmp_path / "bad.png").write_bytes(b"bad")
    paths = [(image, ""), (tmp_path / "bad.png", ""), (image, "normal"), (tmp_path / "no.png", "")]
    futures = [worker.submit(held.predictor, path, known) for path, known in paths]
    assert futures[0].result(60).mask.any()
    assert isinstance(futures[1].exception(60), DxsegError)
    assert (futures[2].result(60).label_prompt, futures[2].result().mask.any()) == ("normal", False)
    assert isinstance(futures[3].exception(60), DxsegError)


def test_a_network_that_fails_fails_those_who_wait_and_not_the_next(
    held: Held, start: Callable[[int], Worker], image: Path
) -> None:
    outputs = held.predictor.backend.forward

    def broken(*_arguments: Any) -> None:
        assert held.may_go.wait(60)
        raise MemoryError

    held.predictor.backend.forward = broken  # type: ignore[method-assign]
    worker = start(20)
    futures = [worker.submit(held.predictor, image, "") for _ in range(6)]
    held.may_go.set()
    assert all(isinstance(future.exception(60), MemoryError) for future in futures)
    held.predictor.backend.forward = outputs  # type: ignore[method-assign]
    assert worker.submit(held.predictor, image, "").result(60).mask.any()
    assert worker.alive
