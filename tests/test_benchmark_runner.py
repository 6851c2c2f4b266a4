"""`benchmarks/run.py`: one table and one line of history a run, whatever fails."""

from __future__ import annotations

import json

import pytest

from benchmark_scripts import BENCHMARKS, json_line, load


def test_a_run_is_kept_and_is_shown_next_to_the_next(capsys, tmp_path):
    bench = load("run")
    history = tmp_path / "history.jsonl"
    words = ["--tiny", "--only", "startup", "--history", str(history)]
    first = bench.main(words)
    assert json_line(capsys.readouterr().out) == first
    assert list(first["ratios"]) == ["dxseg --help"]
    assert 0 < first["ratios"]["dxseg --help"] < 1, "a Python that does nothing is faster"
    assert (first["settings"], first["failed"]) == ("tiny", {})
    assert "cores" in first["machine"]

    # As if there had been two runs, the later one on another machine.
    before = first | {"ratios": {"dxseg --help": 55.0}}
    other = first | {"machine": "an abacus", "ratios": {"dxseg --help": 77.0}}
    history.write_text("".join(f"{json.dumps(record)}\n" for record in (before, other)))
    second = bench.main(words)
    printed = capsys.readouterr().out
    assert "55.00" in printed
    assert "77.00" not in printed
    kept = [json.loads(line) for line in history.read_text().splitlines()]
    assert kept == [before, other, second]


def test_a_benchmark_that_fails_is_reported_and_the_others_continue(capsys, monkeypatch, tmp_path):
    bench = load("run")
    monkeypatch.setattr(bench, "HERE", tmp_path)
    (tmp_path / "train_throughput.py").write_text("raise SystemExit('no such method')")
    result = {"seconds": {"dxseg --help": 0.5, "bare Python": 0.25}, "ratio": 0.5}
    (tmp_path / "startup.py").write_text(f"print('a table')\nprint({json.dumps(result)!r})")
    record = bench.main(["--only", "train_throughput", "startup"])
    assert record["failed"] == {"train_throughput": "no such method"}
    assert record["ratios"] == {"dxseg --help": 0.5}
    assert record["commit"] == "unknown", "the folder is under no version control"
    assert "train_throughput failed: no such method" in capsys.readouterr().out


@pytest.mark.slow
def test_every_benchmark_runs_in_its_tiny_setting():
    record = load("run").main(["--tiny"])
    assert record["failed"] == {}
    assert list(record["ratios"]) == [
        "train, sks",
        "predict, unet",
        "predict, unet, fastest backend",
        "predict, sks",
        "predict, sks, fastest backend",
        "import",
        "check",
        "dxseg --help",
    ]
    assert min(record["ratios"].values()) > 0


def test_every_script_that_is_run_is_described():
    readme = (BENCHMARKS / "README.md").read_text()
    for name in ("run", *load("run").BENCHES):
        assert f"## {name}.py" in readme, name
