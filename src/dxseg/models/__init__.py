"""Networks in plain PyTorch: nothing here needs a dataset, a configuration file or Lightning.

`SKS` is the paper's two branches, `CoarseBranch` the stage-1 classifier, `create_model` builds
`SKS` and its baselines by name; every segmentation model returns a `SegmenterOutput`.
"""

from dxseg.models.coarse_branch import CoarseBranch, CoarseOutput
from dxseg.models.factory import create_model
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.segmenter_with_classifier import SegmenterWithClassifier
from dxseg.models.skips import EvidencePrompt, FeatureFusion, Fusion, LongSkip, Prompt
from dxseg.models.sks import SKS

__all__ = [
    "SKS",
    "CoarseBranch",
    "CoarseOutput",
    "EvidencePrompt",
    "FeatureFusion",
    "Fusion",
    "LongSkip",
    "Prompt",
    "SegmentationModel",
    "SegmenterOutput",
    "SegmenterWithClassifier",
    "create_model",
]
