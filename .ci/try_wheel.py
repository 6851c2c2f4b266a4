"""Try an installed wheel: it is complete, and what needs its templates and presets works.

python .ci/try_wheel.py CHECKOUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import dxseg
from dxseg.config.presets import load_config, method_names
from dxseg.phantoms.ultrasound import make_phantoms

STAGE = {"steps": 1, "steps_per_epoch": 1}
TINY = {
    "data": {"image_size": 64, "batch_size": 4},
    "split": {"masks": 6, "validation_masks": 1},
    **dict.fromkeys(("stage1", "stage2", "self_training", "student"), STAGE),
}


def main(checkout: Path) -> None:
    """Compare the installed package with the checkout, then use it."""
    package = Path(dxseg.__file__).parent
    assert checkout.resolve() not in package.resolve().parents, f"{package}: not the wheel"
    source = checkout / "src" / "dxseg"
    kept = [path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    missing = [path for path in kept if not (package / path.relative_to(source)).is_file()]
    assert not missing, f"not in the wheel: {missing}"
    web = package / "server" / "web"
    assert any(web.rglob("*.html")), "the annotation page is missing"
    for method in method_names():
        load_config("cpu", method, {})
    make_phantoms("phantoms", images=12, size=64)
    report = dxseg.check("phantoms")
    assert report.page is not None
    assert "Shortcut probes" in report.page.read_text(encoding="utf-8")
    assert dxseg.info("phantoms")["labels"]
    page = dxseg.demo(output="demo", images=24, overrides=TINY).report
    assert "medical device" in page.read_text(encoding="utf-8")
    print(f"The wheel of dxseg {dxseg.__version__} is complete: {len(kept)} files.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
