"""The AUROC that stage 1 validates by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAUROC, MultilabelAUROC

from dxseg.training.modules.classification import MacroAUROC


class TestMacroAUROC:
    def batches(self, metric: Any, scores: torch.Tensor, target: torch.Tensor) -> float:
        for part in range(0, len(scores), 7):
            metric.update(scores[part : part + 7], target[part : part + 7])
        return float(metric.compute())

    def test_agrees_with_torchmetrics_where_every_label_occurs(self) -> None:
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(60, 3, generator=generator).softmax(1)
        target = torch.randint(0, 3, (60,), generator=generator)
        onehot = torch.nn.functional.one_hot(target, 3)
        theirs = self.batches(MulticlassAUROC(3), scores, target)
        assert self.batches(MacroAUROC(), scores, onehot) == pytest.approx(theirs)
        several = torch.randint(0, 2, (60, 3), generator=generator)
        theirs = self.batches(MultilabelAUROC(3), scores, several)
        assert self.batches(MacroAUROC(), scores, several) == pytest.approx(theirs)

    def test_a_label_that_is_absent_does_not_count(self) -> None:
        scores = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2]])
        present = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
        assert self.batches(MacroAUROC(), scores, present) == 1

    def test_one_label_alone_has_no_auroc(self) -> None:
        assert np.isnan(self.batches(MacroAUROC(), torch.rand(3, 2), torch.tensor([[1, 0]] * 3)))
