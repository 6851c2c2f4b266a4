"""The command line of the benchmarks."""

from __future__ import annotations

import argparse


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Make a parser whose help is a docstring: its first paragraph, the options, the rest."""
    description, _, details = (doc or "").partition("\n\n")
    return argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
