"""The queue before the network: bounded, emptied in batches by one thread through one predictor."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from dxseg.errors import DxsegError
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor


class QueueFullError(Exception):
    """As many images are in hand as may be."""


class StoppingError(Exception):
    """No more images are taken."""


@dataclass(frozen=True, eq=False)
class _Job:
    path: Path
    known: str
    keep_image: bool
    future: Future[Prediction] = field(default_factory=Future)


class Worker:
    """Predicts images in the order they came, many at once where many wait.

    An image counts as in hand from `submit` until its future is done, so `capacity` bounds what
    waits and what is being predicted together.
    """

    def __init__(self, predictor: Predictor, capacity: int) -> None:
        """Start the thread.

        Args:
            predictor: Used by this thread alone.
            capacity: Images in hand at most.
        """
        self._predictor, self._capacity = predictor, capacity
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._in_hand, self._stopping = 0, False
        self._thread = threading.Thread(target=self._run, name="dxseg-predict", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Images that wait or are being predicted."""
        return self._in_hand

    @property
    def full(self) -> bool:
        """Whether `submit` would refuse now."""
        return self._in_hand >= self._capacity

    @property
    def alive(self) -> bool:
        """Whether images are predicted."""
        return self._thread.is_alive()

    def submit(self, path: Path, known: str, *, keep_image: bool = False) -> Future[Prediction]:
        """Have an image predicted; never waits.

        Args:
            path: The image; it must stay until the future is done.
            known: Its label, as `Predictor.stream` takes it; "" where it is not known.
            keep_image: Whether the prediction carries the decoded pixels.

        Returns:
            The prediction, or the `DxsegError` that says why there is none. A future that is
            cancelled before its turn is passed over.

        Raises:
            QueueFullError: Too many are in hand.
            StoppingError: `stop` was called.
        """
        job = _Job(path, known, keep_image)
        with self._lock:
            if self._stopping:
                raise StoppingError
            if self.full:
                raise QueueFullError
            self._in_hand += 1
            self._queue.put(job)
        job.future.add_done_callback(self._done)
        return job.future

    def stop(self) -> None:
        """Take no more, finish what is in hand, end the thread. May be called again."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        self._thread.join()

    def _done(self, _future: Future[Prediction]) -> None:
        with self._lock:
            self._in_hand -= 1

    def _run(self) -> None:
        last = False
        while not last:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            last = waiting[-1] is None
            self._predict([job for job in waiting if job is not None])

    def _predict(self, taken: list[_Job]) -> None:
        jobs = {
            str(number): job
            for number, job in enumerate(taken)
            if job.future.set_running_or_notify_cancel()
        }
        items = [(name, job.path) for name, job in jobs.items()]
        known = {name: job.known for name, job in jobs.items() if job.known}
        keep = any(job.keep_image for job in jobs.values())
        try:
            for name, result in self._predictor.stream(items, labels=known, keep_images=keep):
                future = jobs.pop(name).future
                if isinstance(result, DxsegError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            for job in jobs.values():
                job.future.set_exception(error)
