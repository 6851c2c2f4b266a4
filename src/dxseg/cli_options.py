"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

BackendOption = Annotated[
    str | None, typer.Option(help="torch, onnxruntime or openvino; as suits the model if absent.")
]
