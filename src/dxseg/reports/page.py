"""Common to all pages: the layout, no scripts, everything in one file."""

from __future__ import annotations

import base64
from functools import cache
from importlib import resources
from typing import Any


def render(template: str, context: dict[str, Any]) -> str:
    """Render a page.

    Args:
        template: Path of the template in the package; it extends `reports/page.html.jinja`.
        context: Values of the template; a missing one is an error, all are escaped.
    """
    text: str = _environment().get_template(template).render(context)
    return text


def png_uri(png: bytes) -> str:
    """Encode a PNG as a data URI; "" for empty bytes."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}" if png else ""


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    return (resources.files("dxseg") / name).read_text(encoding="utf-8")
