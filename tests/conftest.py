"""Fixtures shared by the whole suite."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from cli_results import call

# One thread a test process, and the processes tests start: several with all cores each are slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure; pytest-timeout stops what hangs.
settings.register_profile("dxseg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dxseg")

# Python looks for garbage after 700 new objects: too often beside the millions of torch's modules.
gc.set_threshold(50_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much the fault harness does (tests/faults/test_kills.py)."""
    parser.addoption("--kills", type=int, default=50, help="kills of the fault harness, of 50")


@pytest.fixture(scope="session", autouse=True)
def without_flushing() -> Iterator[None]:
    """No waiting for the disk: that guards against power cuts only, and no test makes one.

    Processes that tests start, and kill, flush as users' do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dxseg.io.atomic._flush", lambda _: None)
        yield


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _real_data(name: str) -> Path:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"real data absent: {name} is expected at ../shared/data/{name}")
    return folder


@pytest.fixture(scope="session")
def busi_root() -> Path:
    """The BUSI folder (classes as sub-folders), read-only."""
    return _real_data("busi")


@pytest.fixture(scope="session")
def lidc_root() -> Path:
    """The LIDC windows with their cases.csv, read-only."""
    return _real_data("lidc")


TINY = [
    "data.image_size=64",
    "data.batch_size=4",
    "model.backbone=test_efficientnet",
    "model.decoder_channels=[8, 8, 8, 8, 8]",
    *(
        f"{stage}.{knob}"
        for stage in ("stage1", "stage2")
        for knob in ("steps=4", "warmup_steps=1")
    ),
    "stage1.steps_per_epoch=2",
    "stage2.steps_per_epoch=2",
]
"""Changes that make a whole run, without self-training, a matter of seconds."""


@pytest.fixture(scope="session")
def tiny_changes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The changes of such a run; its backbone has no weights on PyPI, so a file has random ones."""
    import timm
    from safetensors.torch import save_file

    weights = tmp_path_factory.mktemp("weights") / "test_efficientnet.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    return [*TINY, f"model.encoder_weights={weights}"]


@pytest.fixture(scope="session")
def tiny(tiny_changes: list[str]) -> Callable[..., list[str]]:
    """The same as options of the command line, with more changes if wanted."""
    return lambda *more: [word for change in (*tiny_changes, *more) for word in ("--set", change)]


@pytest.fixture(scope="session")
def tiny_overrides(tiny_changes: list[str]) -> dict[str, Any]:
    """The same for Python."""
    from dxseg.config.presets import parse_overrides

    return parse_overrides(tiny_changes)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 phantoms of 64 px; not to be written to."""
    from dxseg.phantoms.ultrasound import make_phantoms

    return make_phantoms(tmp_path_factory.mktemp("phantoms"), images=24, size=64).root


@pytest.fixture(scope="session")
def cli() -> Callable[..., Any]:
    """Call the command line in this process, as a terminal of 200 columns."""
    return call


@pytest.fixture(scope="session")
def trained(
    cli: Callable[..., Any],
    phantoms: Path,
    tiny: Callable[..., list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A tiny run of `sks-evidence` on phantoms, trained and evaluated; not to be written to."""
    run = tmp_path_factory.mktemp("runs") / "tiny-run"
    train = ["train", phantoms, "--out", run, "--method", "sks-evidence", "--masks", 6, *tiny()]
    for words in (train, ["evaluate", run]):
        result = cli(*words)
        assert result.exit_code == 0, result.output
    return run
