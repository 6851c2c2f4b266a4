"""Try an installed wheel: it is complete, and what needs its templates and presets works.

python .ci/try_wheel.py CHECKOUT

The libraries beside it are those of a development environment, so that an import of one which only
an extra brings would succeed here, and fail for a user: such imports are searched for.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    undeclared = sorted(set(imported()) - set(importable_from("dxseg")))
    assert not undeclared, f"imported, but brought by an extra at most: {undeclared}"
    print(f"The wheel of dxseg {dxseg.__version__} is complete: {len(kept)} files.")


def imported() -> Iterator[str]:
    """Packages that the loaded modules of dxseg import when they are loaded."""
    loaded = [module for name, module in sys.modules.items() if name.split(".")[0] == "dxseg"]
    for module in loaded:
        for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module]
            yield from {name.split(".")[0] for name in names} - sys.stdlib_module_names


def importable_from(distribution: str) -> Iterator[str]:
    """Packages that a distribution and all that it requires without extras bring along."""
    found, left = set(), [distribution]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            required = [Requirement(text) for text in requires(name) or []]
            left += [
                canonicalize_name(one.name)
                for one in required
                if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    for package, distributions in packages_distributions().items():
        if found & {canonicalize_name(one) for one in distributions}:
            yield package


if __name__ == "__main__":
    main(Path(sys.argv[1]))
