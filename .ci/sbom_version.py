"""Write the version of the installed dxseg into a bill of materials: pyproject.toml has none.

python .ci/sbom_version.py build/sbom.json
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path


def main(path: Path) -> None:
    """Complete the component that the bill is about."""
    bill = json.loads(path.read_text(encoding="utf-8"))
    bill["metadata"]["component"]["version"] = version("dxseg")
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
