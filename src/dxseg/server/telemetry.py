"""Metrics, and logs with one JSON object per line.

Neither contains file names, headers, addresses or messages: any of them may name a patient or a
user. Routes are those of the server; any other path is `OTHER`.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

OTHER = "other"
LOGGER = logging.getLogger("dxseg.serve")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        """Register them.

        Args:
            in_flight: Returns the number of images in flight.
        """
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "dxseg_requests", "Responses sent.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "dxseg_request_seconds",
            "From the first byte of a request to its response.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        gauge = Gauge(
            "dxseg_images_in_flight", "Images waiting or running.", registry=self.registry
        )
        gauge.set_function(in_flight)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a response.

        Args:
            route: One of the server's, or `OTHER`.
            status: Of HTTP.
            seconds: Its duration.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, event, and the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; of an exception only its type and place are included."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            entry["where"] = [f"{Path(one.filename).name}:{one.lineno}" for one in frames[-5:]]
        return json.dumps(entry)


LOG_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": f"{__name__}.{JsonFormatter.__name__}"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "stream": "ext://sys.stderr",
        }
    },
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False}
        for name in ("uvicorn", LOGGER.name)
    },
}
"""For `logging.config.dictConfig`: the server's own records and uvicorn's."""
