"""dxseg: lesion segmentation for people who have many diagnoses and few masks.

The verbs of the command line, in Python: ``dxseg.train(...)`` returns what ``dxseg train`` prints.
They are loaded when first used, so that importing dxseg costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dxseg.api import (
        check,
        compare,
        compare_experiment,
        demo,
        distill,
        evaluate,
        export_hub,
        export_label_studio,
        export_nnunet,
        export_onnx,
        import_busi,
        import_csv,
        import_dicom,
        import_folder,
        import_label_studio,
        import_msd,
        import_nnunet,
        import_volumes,
        info,
        predict,
        predict_archive,
        report,
        reproduce,
        serve,
        split,
        suggest,
        train,
    )

__all__ = [
    "check",
    "compare",
    "compare_experiment",
    "demo",
    "distill",
    "evaluate",
    "export_hub",
    "export_label_studio",
    "export_nnunet",
    "export_onnx",
    "import_busi",
    "import_csv",
    "import_dicom",
    "import_folder",
    "import_label_studio",
    "import_msd",
    "import_nnunet",
    "import_volumes",
    "info",
    "predict",
    "predict_archive",
    "report",
    "reproduce",
    "serve",
    "split",
    "suggest",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dxseg' has no attribute {name!r}")
    from dxseg import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
