"""A segmentation model with a stage-1 classifier beside it, for decisions about whole images."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.whole_view import WholeView


class SegmenterWithClassifier(SegmentationModel):
    """Masks of a segmenter; labels and evidence of a classifier that sees the same image (ours).

    Every network that starts from a stage-1 classifier can keep it in this way, and any other can
    get one: with the same classifier, rule-out and rule-in are the same for all. Nothing of the
    classifier enters the masks.

    Attributes:
        segmenter: The network that masks train.
        coarse: The classifier; it keeps its weights and normalization statistics.
    """

    def __init__(self, segmenter: SegmentationModel, classifier: CoarseBranch) -> None:
        """Put the two beside each other.

        Args:
            segmenter: Any segmentation model; labels and evidence of its own are replaced.
            classifier: A trained stage 1.
        """
        super().__init__()
        self.segmenter = segmenter
        self.coarse = classifier.requires_grad_(False)
        self.coarse_reduction = segmenter.coarse_reduction
        self.train(self.training)

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The encoder of the segmenter."""
        return self.segmenter.encoder

    def load_encoder(self, classifier: CoarseBranch) -> None:
        """Copy the classifier's encoder into that of the segmenter."""
        self.segmenter.load_encoder(classifier)

    def train(self, mode: bool = True) -> SegmenterWithClassifier:
        """Set the training mode of the segmenter; the classifier stays in evaluation mode."""
        super().train(mode)
        self.coarse.eval()
        return self

    def _forward_padded(
        self, x: Tensor, label_prompt: Tensor | None, whole: WholeView
    ) -> SegmenterOutput:
        output: SegmenterOutput = self.segmenter(x, label_prompt, whole)
        coarse, evidence = whole.classify(self.coarse, label_prompt)
        return replace(output, label_logits=coarse.label_logits, evidence=evidence)


def without_classifier(network: SegmentationModel) -> SegmentationModel:
    """The network that makes the masks: the segmenter of a pair, or the network itself."""
    return network.segmenter if isinstance(network, SegmenterWithClassifier) else network
