"""The server as a process: many clients, slow ones, broken ones, and the signal that ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from serving import Served, png, sent, until

Start = Callable[..., Served]


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as opened:
        yield opened


def predict(client: httpx2.Client, url: str) -> Any:
    return client.post(f"{url}/v1/predict", **sent(png()))


def connect(served: Served) -> socket.socket:
    parts = urlsplit(served.url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def in_flight(client: httpx2.Client, url: str) -> float:
    text = client.get(f"{url}/metrics").text
    [line] = [one for one in text.splitlines() if one.startswith("dxseg_images_in_flight ")]
    return float(line.split()[1])


HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n"
)


SERVER = """
import sys, time
sys.path.insert(0, {tests!r})
from brightness import Maker
from dxseg.server.uvicorn_server import run_server
from dxseg.server.settings import Settings
predictor = Maker()(batch_size=2)
outputs = predictor.backend.forward
def slow(*arguments):
    time.sleep(0.5)
    return outputs(*arguments)
predictor.backend.forward = slow
run_server(predictor, Settings(), port=0, ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.slow
def test_sigterm_answers_what_was_accepted_and_ends_well(
    client: httpx2.Client, tmp_path: Path
) -> None:
    code = SERVER.format(tests=str(Path(__file__).parents[1]))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with ThreadPoolExecutor(6) as pool:
            answers = [pool.submit(predict, client, url) for _ in range(6)]
            until(lambda: in_flight(client, url) == 6)
            process.send_signal(signal.SIGTERM)
            assert [answer.result().status_code for answer in answers] == [200] * 6
        output, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output.strip()) == (0, "ended")
    with pytest.raises(httpx2.ConnectError):
        client.get(f"{url}/healthz")
    assert list(tmp_path.iterdir()) == [], "no upload stays"
    entries = [json.loads(line) for line in log.splitlines()]
    assert [entry["event"] for entry in entries].count("answered") >= 6
    assert {"Shutting down"} <= {entry["event"] for entry in entries}


def test_what_arrives_while_the_server_stops_is_told_so(
    start_server: Start, client: httpx2.Client
) -> None:
    served = start_server()
    body = png()
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + body
    form += b"\r\n--x--\r\n"
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(form) + form
    waiting = [connect(served) for _ in range(20)]
    served.server.handle_exit(signal.SIGTERM, None)
    assert client.get(f"{served.url}/healthz").status_code == 503
    for connection in waiting:
        connection.sendall(request)
    for connection in waiting:
        assert connection.recv(4096).startswith(b"HTTP/1.1 503 ")
        connection.close()
    served.thread.join(60)
    assert not served.thread.is_alive()


def test_a_full_queue_is_told_and_nothing_that_was_accepted_is_lost(
    start_server: Start, client: httpx2.Client
) -> None:
    served = start_server(pause=0.2, batch_size=2, queue=4)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: predict(client, served.url), range(48)))
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}
    assert counts[200] >= 4
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
        else:
            assert answer.json()["area"]["class0"]["pixels"] == 64
    until(lambda: in_flight(client, served.url) == 0)
    assert predict(client, served.url).status_code == 200


def test_slow_clients_are_let_go_and_do_not_hinder_others(
    start_server: Start, client: httpx2.Client
) -> None:
    served = start_server(upload_seconds=1.0, queue=2)
    # More than the queue holds, all sending for ever.
    slow = [connect(served) for _ in range(5)]
    for connection in slow:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n--x\r\n")
    assert predict(client, served.url).status_code == 200
    for connection in slow:
        assert b"HTTP/1.1 408 " in connection.recv(4096)
        while connection.recv(4096):
            pass
        connection.close()
    assert predict(client, served.url).status_code == 200


def test_no_answer_in_time_is_told(start_server: Start, client: httpx2.Client) -> None:
    served = start_server(pause=1.0, batch_size=1, seconds=0.5)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: predict(client, served.url), range(3)))
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "0.5 s" in answer.json()["detail"]
    until(lambda: in_flight(client, served.url) == 0)
    assert client.get(f"{served.url}/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\xff garbage\r\n\r\n",
        HEAD + b"Content-Length: nonsense\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nabcde",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(
    start_server: Start, client: httpx2.Client, content: bytes
) -> None:
    served = start_server()
    with connect(served) as connection:
        connection.sendall(content)
        assert connection.recv(4096).split(b" ")[1][:1] == b"4"
    with connect(served) as connection:
        # Gone in the middle of a request.
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n--x\r\n")
    assert predict(client, served.url).status_code == 200
