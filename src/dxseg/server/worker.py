"""A bounded queue of images, predicted in batches by one thread."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dxseg.data.readers.budget import decode_budget
from dxseg.errors import DxsegError, UnexpectedError
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.sources import Source

_T = TypeVar("_T")


class QueueFullError(Exception):
    """Too many images are in flight."""


class StoppingError(Exception):
    """No more images are accepted."""


@dataclass(frozen=True, eq=False)
class _Job:
    predictor: Predictor
    source: Source
    label_prompt: str
    keep_image: bool
    future: Future[Prediction] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class _Task:
    run: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """Predicts images in the order of `submit`, in batches where several wait.

    An image is in flight while it is inspected (`inspecting`), and from `submit` until its future
    is done, so `capacity` limits images in all three states together.
    """

    def __init__(self, capacity: int, max_decoded_bytes: int) -> None:
        """Start the thread.

        Args:
            capacity: Number of images in flight at most.
            max_decoded_bytes: Decoded bytes of an image at most.
        """
        self._capacity, self._max_decoded_bytes = capacity, max_decoded_bytes
        self._queue: queue.SimpleQueue[_Job | _Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._in_flight, self._stopping = 0, False
        self._thread = threading.Thread(target=self._run, name="dxseg-predict", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Images that wait or are being predicted."""
        return self._in_flight

    @property
    def full(self) -> bool:
        """Whether `submit` would raise QueueFullError now."""
        return self._in_flight >= self._capacity

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @contextmanager
    def inspecting(self) -> Iterator[None]:
        """Count an image as in flight while the block runs.

        Raises:
            QueueFullError: Too many are in flight.
            StoppingError: `stop` was called.
        """
        with self._lock:
            self._count()
        try:
            yield
        finally:
            self._leave()

    def submit(
        self, predictor: Predictor, source: Source, label_prompt: str, *, keep_image: bool = False
    ) -> Future[Prediction]:
        """Queue an image; never waits.

        Args:
            predictor: Predicts it; used by the worker's thread alone.
            source: The image; its file must stay until the future is done.
            label_prompt: As in `Predictor.stream`; "" for none.
            keep_image: Whether the prediction carries the decoded pixels.

        Returns:
            A future of the prediction, or of a `DxsegError`. One that is cancelled before its turn
            is skipped.

        Raises:
            QueueFullError: Too many are in flight.
            StoppingError: `stop` was called.
        """
        job = _Job(predictor, source, label_prompt, keep_image)
        self._put(job)
        return job.future

    def submit_task(self, run: Callable[[], _T]) -> Future[_T]:
        """Queue work that predicts several images which belong together; never waits.

        Args:
            run: Called in the worker's thread; counts as one image in flight.

        Returns:
            A future of what it returns or raises.

        Raises:
            QueueFullError: Too many are in flight.
            StoppingError: `stop` was called.
        """
        task = _Task(run)
        self._put(task)
        return task.future

    def stop(self) -> None:
        """Accept no more, finish what is in flight, end the thread. May be called again."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        self._thread.join()

    def _put(self, job: _Job | _Task) -> None:
        with self._lock:
            self._count()
            self._queue.put(job)
        job.future.add_done_callback(lambda _future: self._leave())

    def _count(self) -> None:
        if self._stopping:
            raise StoppingError
        if self.full:
            raise QueueFullError
        self._in_flight += 1

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _run(self) -> None:
        with decode_budget(self._max_decoded_bytes):
            self._predict_until_stopped()

    def _predict_until_stopped(self) -> None:
        last = False
        while not last:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            last = waiting[-1] is None
            for task in (one for one in waiting if isinstance(one, _Task)):
                _run(task)
            taken = [job for job in waiting if isinstance(job, _Job)]
            for predictor, jobs in itertools.groupby(taken, lambda job: job.predictor):
                self._predict(predictor, list(jobs))

    def _predict(self, predictor: Predictor, taken: Sequence[_Job]) -> None:
        jobs = {
            str(number): job
            for number, job in enumerate(taken)
            if job.future.set_running_or_notify_cancel()
        }
        items = [(name, job.source) for name, job in jobs.items()]
        labels = {name: job.label_prompt for name, job in jobs.items() if job.label_prompt}
        keep = any(job.keep_image for job in jobs.values())
        try:
            for name, result in predictor.stream(items, labels=labels, keep_images=keep):
                future = jobs.pop(name).future
                if isinstance(result, UnexpectedError):
                    # A failure of the server: its text may quote the image's header.
                    future.set_exception(result.__cause__ or result)
                elif isinstance(result, DxsegError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - reported to everyone who waits
            for job in jobs.values():
                job.future.set_exception(error)


def _run(task: _Task) -> None:
    if not task.future.set_running_or_notify_cancel():
        return
    try:
        task.future.set_result(task.run())
    except UnexpectedError as error:
        # A failure of the server: its text may quote the image's header.
        task.future.set_exception(error.__cause__ or error)
    except Exception as error:  # noqa: BLE001 - reported to who waits
        task.future.set_exception(error)
