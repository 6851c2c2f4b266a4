"""Predicting files with the network that finds bright pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dxseg.inference.predictor import Predictor


@pytest.fixture
def use(monkeypatch, make_predictor) -> Callable[..., list[str]]:
    """Make `predict_files` run the network that finds bright pixels; gives the files it read."""

    def install(**options: object) -> list[str]:
        predictor = make_predictor(**options)
        read: list[str] = []
        stream = predictor.stream

        def spying(items, **options):
            def spied():
                for name, path in items:
                    read.append(name)
                    yield name, path

            return stream(spied(), **options)

        monkeypatch.setattr(predictor, "stream", spying)
        monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
        return read

    return install
