"""`--fix`: a repaired copy of a dataset, and a record of every repair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.importers.destination import UNFINISHED, open_destination
from dxseg.data.readers.masks import read_masks_merged, write_mask
from dxseg.data.splits.groups import IDENTITIES, contradicting, link_groups
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import BAG_LEVELS, MASK_LEVELS
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import write_text_atomic
from dxseg.quality.cross_case_checks import group_exact_duplicates
from dxseg.quality.file_checks import image_label_sets
from dxseg.quality.finding_types import FINDING_TYPES
from dxseg.quality.findings import LISTED, Action, ActionName, Repair
from dxseg.quality.row_findings import RowFinding
from dxseg.quality.scan import Scan

REPAIRS_FILE = "repairs.json"

_DROP = (
    "image-not-found",
    "image-unreadable",
    "image-channels",
    "mask-on-lesion-free",
    "labels-contradict",
)
_REMOVE_MASK = ("mask-not-found", "mask-unreadable", "mask-refused", "mask-size")
_REWRITE = ("mask-repaired", "mask-layout")
_SPLIT = ("patients-across-splits", "duplicates-across-splits", "labels-contradict-in-splits")
_GROUPED = ("duplicates-near", "duplicates-across-patients")


def prepare_destination(dataset: Dataset, destination: Path) -> None:
    """Prepare the folder of the copy before the long part of the check.

    Args:
        dataset: The source.
        destination: A new or empty folder, or that of an interrupted copy.

    Raises:
        UsageError: It is inside the source, or the source inside it.
        DxsegError: It contains something else.
    """
    target = destination.resolve()
    if target.is_relative_to(dataset.root) or dataset.root.is_relative_to(target):
        raise UsageError(
            f"--fix {destination}: is inside the dataset {dataset.root}, or contains it; choose a "
            "folder elsewhere: the source is never changed"
        )
    open_destination(target, dataset.spec.name, overwrite=False)


def write_repaired(
    scan: Scan,
    near: NDArray[np.int64],
    row_findings: Sequence[RowFinding],
    destination: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Repair:
    """Write a copy in which everything that can be fixed automatically is fixed.

    Images are not copied: the copy's `dataset.yaml` lists the source among its roots. Changed masks
    are written to the copy. `dataset.yaml` is written last, so that an interrupted copy is not a
    dataset.

    Args:
        scan: The source with its scanned files.
        near: Near-duplicate group of each case.
        row_findings: The findings.
        destination: The folder that `prepare_destination` accepted.
        progress: Called with the number of cases done and their total.

    Raises:
        DxsegError: No case is left.
    """
    table = _RepairedTable(scan, near, row_findings, destination.resolve())
    table.drop()
    table.remove_masks()
    table.merge_duplicates()
    table.write_masks(progress)
    table.group()
    table.empty_split()
    repair = table.save()
    write_text_atomic(destination / REPAIRS_FILE, repair.model_dump_json(indent=2) + "\n")
    (destination / UNFINISHED).unlink(missing_ok=True)
    return repair


class _RepairedTable:
    """The copy's table while it is being made."""

    def __init__(
        self,
        scan: Scan,
        near: NDArray[np.int64],
        row_findings: Sequence[RowFinding],
        destination: Path,
    ) -> None:
        self.scan, self.near, self.destination = scan, near, destination
        self.source = scan.dataset
        self.cases = self.source.cases.copy()
        self.keep = np.ones(len(self.cases), np.bool_)
        self.rows = {one.code: one.rows for one in row_findings}
        self.fixed: set[str] = set()
        self.actions: list[Action] = []
        self.extra: dict[int, list[Path]] = {}

    def drop(self) -> None:
        for code in _DROP:
            rows = self.rows.get(code, np.zeros(0, np.int64))
            self._note("drop", rows[self.keep[rows]], FINDING_TYPES[code].title)
            self.keep[rows] = False
            self.fixed.add(code)

    def remove_masks(self) -> None:
        for code in _REMOVE_MASK:
            rows = self.rows.get(code, np.zeros(0, np.int64))
            rows = rows[self.keep[rows]]
            self._note("remove-mask", rows, FINDING_TYPES[code].title)
            self.cases.loc[rows, "mask"] = ""
            derived = rows[self.cases.loc[rows, "label_level"].isin(MASK_LEVELS)]
            self._note("remove-mask", derived, "their labels too, which followed from the mask")
            self.cases.loc[derived, ["label", "label_level"]] = ""
            self.fixed.add(code)

    def merge_duplicates(self) -> None:
        """Keep the first of several cases whose image files are equal, with the masks of all.

        Slices stay: a volume without some of its slices is another one. Copies that contradict each
        other are dropped, since any may be wrong.
        """
        exact = group_exact_duplicates(self.scan)
        single = self.keep & self.cases["volume_id"].eq("").to_numpy()
        doubtful = contradicting(exact, image_label_sets(self.scan)) | self._half_lesion_free(exact)
        copied = pd.Series(single).groupby(exact).transform("sum").gt(1).to_numpy()
        contrary = np.flatnonzero(single & doubtful & copied)
        self._note("drop", contrary, "copies of another image that contradict it")
        self.keep[contrary] = False
        clear = single & ~doubtful
        gone = []
        for _, rows in pd.Series(np.flatnonzero(clear)).groupby(exact[clear]):
            first, *copies = rows.tolist()
            gone.extend(copies)
            self._take_columns(first, copies)
            for copy in copies:
                self.extra.setdefault(first, []).extend(self._mask_paths(copy))
        self._note("drop", gone, "copies of another image; their masks are merged into its mask")
        self.keep[gone] = False
        if not pd.Series(exact[self.keep]).duplicated().any():
            self.fixed.add("duplicates-exact")

    def _half_lesion_free(self, exact: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Groups of copies of which one is lesion-free and another has a mask with a lesion."""
        drawn = self.cases["mask"].ne("") & self.scan.facts["mask_area"].gt(0) & self.keep
        free = self.source.lesion_free & self.keep
        both = drawn.groupby(exact).transform("any") & free.groupby(exact).transform("any")
        return both.to_numpy()

    def _take_columns(self, first: int, copies: list[int]) -> None:
        """Complete the patient and the label of the case that is kept from its copies."""
        own = self.cases.loc[[first, *copies]]
        patient = next(filter(None, own["patient_id"]), "")
        self.cases.loc[first, "patient_id"] = patient
        of_study = own["label_level"].isin(BAG_LEVELS)
        # The label of another patient's study says nothing about this one.
        valid = own["label"].ne("") & (~of_study | own["patient_id"].isin(["", patient]))
        labels = own.loc[valid, ["label", "label_level"]]
        if not self.cases.loc[first, "label"] and len(labels):
            self.cases.loc[first, labels.columns] = labels.iloc[0]

    def write_masks(self, progress: Callable[[int, int], None] | None) -> None:
        """Write the masks that are merged or were not plain."""
        not_plain = {int(row) for code in _REWRITE for row in self.rows.get(code, ())}
        merged: list[int] = []
        rewritten: list[int] = []
        failed = False
        kept = np.flatnonzero(self.keep).tolist()
        for done, row in enumerate(kept, 1):
            own = self._mask_paths(row)
            masks = list(dict.fromkeys([*own, *self.extra.get(row, ())]))
            try:
                if len(masks) > 1 or (masks and (not own or row in not_plain)):
                    self._write_mask(row, masks)
                    (merged if masks != own[:1] else rewritten).append(row)
            except DxsegError:
                # For example an unlisted mask of another size: the finding and the mask stay.
                failed = True
            if progress is not None:
                progress(done, len(kept))
        self._note("merge", merged, "several masks of one image, merged")
        self._note("rewrite-mask", rewritten, "masks that were not plain numbers")
        if not failed:
            self.fixed.add("mask-left-out")

    def group(self) -> None:
        """Fill the column group: splits keep together near-duplicates, and what dropped rows link.

        A dropped copy under another patient still says that both patients belong together.
        """
        number = link_groups(self.cases[[*IDENTITIES, "image"]], self.near)
        kept = np.flatnonzero(self.keep)
        known = pd.Series(link_groups(self.cases.loc[kept, list(IDENTITIES)], None))
        joined = known.groupby(number[kept]).transform("nunique").gt(1).to_numpy()
        width = len(str(number.max() + 1))
        self.cases["group"] = [f"g{value + 1:0{width}}" for value in number]
        reason = "near-duplicates, kept in one split by the column group"
        self._note("group", kept[joined], reason)
        self.fixed.update(_GROUPED)

    def empty_split(self) -> None:
        """Empty the column split of the table if it separates cases that belong together."""
        if not any(code in self.rows for code in _SPLIT) or self.cases["split"].eq("").any():
            return
        self.cases["split"], self.cases["fold"] = "", pd.NA
        rows = np.flatnonzero(self.keep)
        self._note("empty-split", rows, "the columns split and fold, which separated groups")
        self.fixed.update(_SPLIT)

    def save(self) -> Repair:
        kept = self.cases[self.keep].reset_index(drop=True)
        if kept.empty:
            raise DxsegError(
                f"{self.source.root}: no case is left after the repairs; see the findings in the "
                "report of a check without --fix"
            )
        roots = [str(root) for root in self.source.folders]
        spec = self.source.spec.model_copy(update={"roots": roots})
        Dataset.create(self.destination, spec, kept)
        remaining = [
            code for code in FINDING_TYPES if code in self.rows and self._still_applies(code)
        ]
        return Repair(
            destination=self.destination, cases=len(kept), actions=self.actions, remaining=remaining
        )

    def _still_applies(self, code: str) -> bool:
        """Whether the copy still has the problem of a finding."""
        rows = self.rows[code]
        gone = len(rows) > 0 and not self.keep[rows].any()
        return code not in self.fixed and FINDING_TYPES[code].severity != "info" and not gone

    def _mask_paths(self, row: int) -> list[Path]:
        """The readable mask files of a case."""
        if not self.cases.loc[row, "mask"]:
            return []
        path = self.source.mask_path(self.cases.loc[row])
        return [] if path is None else [path, *self.scan.unlisted_masks.get(row, ())]

    def _write_mask(self, row: int, masks: list[Path]) -> None:
        classes = len(self.source.spec.mask_classes)
        mask = read_masks_merged(masks, classes)
        facts = self.scan.facts.iloc[row]
        size = (int(facts["height"]), int(facts["width"]))
        if mask.shape != size:
            raise DxsegError(f"{masks[0]}: {mask.shape} pixels, but its image has {size}")
        name = f"masks/{self.cases['case_id'].iloc[row]}_repaired.png"
        while any((root / name).exists() for root in self.source.folders):
            # The copy's folder is searched first: the name must not shadow a file of the source.
            name = f"{name.removesuffix('.png')}_.png"
        merged = max(len(masks), int(facts["mask_merged"]))
        write_mask(self.destination / name, mask, classes, merged_count=merged)
        self.cases.loc[row, "mask"] = name

    def _note(self, action: ActionName, rows: Iterable[int], reason: str) -> None:
        names = self.source.cases["case_id"].iloc[list(rows)].tolist()
        if names:
            done = Action(action=action, count=len(names), case_ids=names[:LISTED], reason=reason)
            self.actions.append(done)
