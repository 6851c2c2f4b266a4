"""`dxseg serve` under load, on loopback: many clients, malformed uploads, slow clients."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from dxseg.config.presets import load_config
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.models.factory import Task, build_model
from dxseg.models.heads import LESION_PRIOR
from dxseg.phantoms.ultrasound import make_phantoms

DETAILS = """
An untrained network (its speed does not depend on its weights) is served in a separate process.
Clients send phantoms, one after the other, each as soon as the previous response has arrived; one
request in --malformed is truncated, garbage or not an image. At the same time, slow clients keep
sending bytes of requests that never end. A request with response 429 is sent again.

Lost is what was neither answered with the status that it must have (200, or 422 for what is no
image) nor with 429. Latency is from the first try to the answer, so it holds the waiting of 429s.
Memory is the server's resident set after each tenth of the requests.

At the end all clients send one more request each, and SIGTERM comes once a quarter of them, or of
what the queue holds, is in flight. `stopping` has what they got: what was accepted must be
answered, with 200, 429 or 503; ConnectError is that of a client that came after the signal.
"""


def make_model(folder: Path, size: int, method: str) -> Path:
    """An untrained model folder of a method, as `dxseg train` would write it."""
    model = load_config("cpu", method).model
    labels = ["normal", "benign", "malignant"]
    save_model_folder(
        folder,
        build_model(model, Task(3, 1, len(labels), lesion_free=(0,)), pretrained=False),
        ModelInfo(
            threshold=LESION_PRIOR,  # untrained networks mark about half of an image then
            model=model,
            preprocessing=Preprocessing(
                image_size=size, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3
            ),
            labels=labels,
            lesion_free=["normal"],
        ),
    )
    return folder


@contextmanager
def serving(model: Path, arguments: argparse.Namespace) -> Iterator[tuple[Any, str]]:
    """A server process and its address."""
    command = [
        sys.executable,
        "-c",
        "from dxseg.commands.app import main; main()",
        "serve",
        str(model),
    ]
    command += ["--port", "0", "--queue", str(arguments.queue), "--upload-timeout", "5"]
    command += ["--timeout", "600"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            [url] = re.findall(r"http://\S+", process.stdout.readline())
            yield process, url
        finally:
            process.kill()


def bodies(folder: Path, native: int, malformed: int) -> list[tuple[bytes, int]]:
    """What clients send in turns, and the status that each must be answered with."""
    dataset = make_phantoms(folder, images=24, size=native)
    good = [(path.read_bytes(), 200) for path in sorted((dataset.root / "images").glob("*.png"))]
    generator = np.random.default_rng(0)
    whole = good[0][0]
    stream = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(stream, "JPEG")
    bad = [b"", b"not an image", whole[: len(whole) // 2], generator.bytes(5000)]
    bad.append(stream.getvalue()[:-400])
    mixed, broken = [], itertools.cycle(bad)
    for number, one in enumerate(itertools.islice(itertools.cycle(good), 120), 1):
        mixed.append((next(broken), 422) if malformed and number % malformed == 0 else one)
    return mixed


class Load:
    """Clients that send what is in a queue until it is empty."""

    def __init__(self, url: str, work: Sequence[tuple[bytes, int]], clients: int) -> None:
        self.url, self.clients = url, clients
        self.todo: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
        for one in work:
            self.todo.put(one)
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.lost: list[str] = []

    def run(self) -> None:
        """Send all."""
        threads = [threading.Thread(target=self._client) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self) -> None:
        with httpx2.Client(timeout=600) as client:
            while True:
                try:
                    content, expected = self.todo.get_nowait()
                except queue.Empty:
                    return
                begun = time.perf_counter()
                status = self._send(client, content)
                self.seconds.append(time.perf_counter() - begun)
                self.statuses[status] += 1
                if status != str(expected):
                    self.lost.append(status)

    def _send(self, client: httpx2.Client, content: bytes) -> str:
        while True:
            try:
                answer = client.post(f"{self.url}/v1/predict", files={"file": content})
            except httpx2.HTTPError as error:
                return type(error).__name__
            if answer.status_code != 429:
                return str(answer.status_code)
            self.statuses["429"] += 1
            time.sleep(float(answer.headers["retry-after"]) / 4)


class SlowClients:
    """Clients whose requests never end, a byte at a time; they come back when they are let go."""

    def __init__(self, url: str, count: int) -> None:
        self.url, self.let_go, self._over = url, 0, threading.Event()
        self.threads = [threading.Thread(target=self._drip, daemon=True) for _ in range(count)]

    def __enter__(self) -> SlowClients:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self.threads:
            thread.join()

    def _drip(self) -> None:
        def body() -> Iterator[bytes]:
            yield b"--x\r\n"
            while not self._over.wait(0.2):
                yield b"y"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        with httpx2.Client(timeout=60) as client:
            while not self._over.is_set():
                with suppress(httpx2.HTTPError):
                    client.post(f"{self.url}/v1/predict", content=body(), headers=headers)
                self.let_go += 1
                self._over.wait(0.2)


def metric(url: str, name: str) -> float:
    """A value of the server's own metrics."""
    text = httpx2.get(f"{url}/metrics", timeout=60).text
    [value] = re.findall(rf"^{name} (\S+)", text, re.MULTILINE)
    return float(value)


def stop_under_load(process: Any, url: str, load: Load, queue_length: int) -> dict[str, Any]:
    """Send SIGTERM while clients wait for answers."""
    clients = threading.Thread(target=load.run)
    clients.start()
    wanted, count = -(-min(queue_length, load.clients) // 4), 0
    while count < wanted and clients.is_alive():
        count = round(metric(url, "dxseg_images_in_flight"))
    process.send_signal(signal.SIGTERM)
    begun = time.perf_counter()
    process.wait(120)
    seconds = time.perf_counter() - begun
    clients.join()
    return {"in_flight": count, "statuses": dict(load.statuses), "seconds": round(seconds, 2)}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Serve, load, stop; gives the figures."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", arguments.size, arguments.method)
        kinds = bodies(Path(folder) / "phantoms", arguments.native, arguments.malformed)
        work = list(itertools.islice(itertools.cycle(kinds), arguments.requests))
        tenth = max(1, arguments.requests // 10)
        with serving(model, arguments) as (process, url), SlowClients(url, arguments.slow) as slow:
            loads, memory, elapsed = [], [], 0.0
            for start in range(0, len(work), tenth):
                loads.append(Load(url, work[start : start + tenth], arguments.clients))
                begun = time.perf_counter()
                loads[-1].run()
                elapsed += time.perf_counter() - begun
                memory.append(round(metric(url, "process_resident_memory_bytes") / 2**20))
            last = Load(
                url, [one for one in work if one[1] == 200][: arguments.clients], arguments.clients
            )
            stopping = stop_under_load(process, url, last, arguments.queue)
    seconds = [one for load in loads for one in load.seconds]
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return {
        "benchmark": "serve_load",
        "method": arguments.method,
        "image_size": arguments.size,
        "requests": arguments.requests,
        "clients": arguments.clients,
        "slow_clients": arguments.slow,
        "slow_clients_let_go": slow.let_go,
        "queue": arguments.queue,
        "statuses": dict(sorted(sum((load.statuses for load in loads), Counter()).items())),
        "lost": sum(len(load.lost) for load in loads),
        "requests_per_s": len(seconds) / elapsed,
        "seconds_p50": p50,
        "seconds_p95": p95,
        "seconds_p99": p99,
        "memory_mb": memory,
        "load_average": round(os.getloadavg()[0], 1),
        "stopping": stopping,
        "exit_code": process.returncode,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, help="images to send (2000)")
    parser.add_argument("--clients", type=int, default=16, help="that send at once (16)")
    parser.add_argument("--slow", type=int, default=8, help="clients that never finish (8)")
    parser.add_argument("--malformed", type=int, default=10, help="one in so many (10); 0: none")
    parser.add_argument("--queue", type=int, default=12, help="of the server (12)")
    parser.add_argument("--native", type=int, default=256, help="side of phantoms, pixels (256)")
    parser.add_argument("--size", type=int, default=128, help="side of the network's input (128)")
    parser.add_argument("--method", default="sks", help="see dxseg methods (sks)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    result = measure(parse(argv))
    table = Table("", "", title="dxseg serve under load", show_header=False)
    for key, value in result.items():
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
