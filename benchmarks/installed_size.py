"""What an installation weighs: dxseg with what it needs, and what each extra adds, in MB.

python benchmarks/installed_size.py

Reads which files each installed package owns; an extra counts what the packages before it do not
bring. CUDA is what builds of torch for processors do not have: NVIDIA's libraries, triton, and
torch's own CUDA code.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

CUDA = re.compile(r"^(nvidia|cuda|triton)")
CUDA_CODE = re.compile(r"torch/lib/lib(torch_cuda|c10_cuda|torch_nvshmem|caffe2_nvrtc|cusparseLt)")
OWN = "dxseg"


def needed(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of the installed packages that a package needs, itself among them."""
    found: set[str] = set()
    waiting = [(name, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            package = distribution(one[0])
        except PackageNotFoundError:
            continue
        found.add(_canonical(package.name))
        for text in package.requires or []:
            requirement = Requirement(text)
            wanted = [{"extra": extra} for extra in one[1] or {""}]
            if requirement.marker is None or any(map(requirement.marker.evaluate, wanted)):
                waiting.append((_canonical(requirement.name), frozenset(requirement.extras)))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def sizes(package: Distribution) -> tuple[int, int]:
    """Bytes of a package, and those of CUDA among them."""
    total = cuda = 0
    for path in package.files or []:
        file = Path(str(path.locate()))
        if not file.is_file():
            continue
        size = file.stat().st_size
        total += size
        if CUDA.match(_canonical(package.name)) or CUDA_CODE.search(file.as_posix()):
            cuda += size
    return total, cuda


def main() -> None:
    """Print the table."""
    base = needed(OWN)
    total, cuda = (
        sum(column) for column in zip(*(sizes(distribution(n)) for n in base), strict=True)
    )
    print("| what | packages | MB |\n|---|---|---|")
    print(f"| dxseg | {len(base)} | {total / 1e6:.0f} |")
    print(f"| of it CUDA | | {cuda / 1e6:.0f} |")
    for extra in sorted(distribution(OWN).metadata.get_all("Provides-Extra") or []):
        added = needed(OWN, frozenset({extra})) - base
        weight = sum(sizes(distribution(name))[0] for name in added)
        print(f"| `dxseg[{extra}]` adds | {len(added)} | {weight / 1e6:.0f} |")


if __name__ == "__main__":
    main()
