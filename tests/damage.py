"""Ways to damage a file: bytes for every format, values for those that hold a tree of them."""

from __future__ import annotations

import copy
import json
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from dxseg.errors import DxsegError

MEGABYTES = 600
"""That reading damaged files of a few kilobytes may add to a process."""

CPU_SECONDS = 30.0
"""That one of them may take: of the processor, so that a busy machine is no failure."""

WORDS = [
    *(b"\0", b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"=", b"-", b":", b"#", b"%"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\xf0\x9f\xa9\xba", b"\xe2\x80\xae"),
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 400, b"0x", b"true", b"2001-99-99"),
    *(b"[" * 3000, b"{" * 3000, b"- " * 3000, b'{"a":' * 1000, b"&a [*a]", b"*a", b"<<: *a"),
    *(b"!!python/object/apply:os.abort []", b"!!bool x", b"../../../etc/passwd", b"/dev/zero"),
]
WAYS = ["byte", "bit", "cut", "remove", "double", "word", "extreme", "splice"]
EXTREMES = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**31, 10**30, 0.5, -1e308, 1e999, float("nan")),
    *("", "x" * 5000, "\0", "=1+1", "../../x", "/dev/zero", "\u202e", "ä"),
    *([], {}, [[]], [None] * 300, {"": {}}, [[[[[[[[1]]]]]]]]),
]


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of some whole files with bytes changed, cut, doubled, put in, or spliced with another."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 4))):
        # Headers stand at the start, in some formats at the end.
        end = max(len(content) - 1, 0)
        at = draw(st.integers(0, min(end, 400)) | st.integers(0, end))
        at = draw(st.sampled_from([at, at, end - at]))
        way = draw(st.sampled_from(WAYS))
        if way == "byte":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif way == "bit" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif way == "cut":
            del content[at:]
        elif way == "remove":
            del content[at : at + draw(st.integers(1, 40))]
        elif way == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 400))]
        elif way == "word":
            content[at:at] = draw(st.sampled_from(WORDS))
        elif way == "extreme":
            content[at : at + 4] = draw(st.sampled_from(EXTREMES))
        else:
            content[at:] = draw(st.sampled_from(whole))[at:]
    return bytes(content)


@st.composite
def changed(
    draw: st.DrawFn, trees: Sequence[Any], write: Callable[[Any], str] = json.dumps
) -> bytes:
    """One of some trees of values, as JSON or YAML, with values replaced, removed or renamed."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        owner, key = draw(st.sampled_from(places))
        way = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
        if way == "replace":
            owner[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif way == "remove":
            del owner[key]
        elif isinstance(owner, dict):
            owner[draw(st.sampled_from(["", "x", "name"]))] = owner.pop(key)
    return write(tree).encode("utf-8", "surrogatepass")


def attack(path: Path, content: bytes, parse: Callable[[Path], object]) -> None:
    """Parse damaged content: it is read, or our error says why not, soon and in little memory."""
    path.write_bytes(content)
    started, before = time.process_time(), _megabytes()
    with suppress(DxsegError):  # any other error fails the test
        parse(path)
    assert time.process_time() - started < CPU_SECONDS
    assert _megabytes() - before < MEGABYTES


def _places(tree: Any) -> Any:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        yield from _places(tree[key])


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
