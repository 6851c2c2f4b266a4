"""`--fix`: a repaired copy of a dataset, and an account of every repair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.importers.destination import UNFINISHED, open_destination
from dxseg.data.readers.masks import read_masks_merged, write_mask
from dxseg.data.splits.groups import contradicting, link_groups
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import write_text_atomic
from dxseg.quality.cross_case_checks import exact_groups
from dxseg.quality.file_checks import image_label_sets
from dxseg.quality.finding_types import KINDS
from dxseg.quality.findings import LISTED, Action, Repair, Verb
from dxseg.quality.row_findings import RowFinding
from dxseg.quality.scan import Survey

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
_GROUPED = ("duplicates-exact", "duplicates-near", "duplicates-across-patients")


def check_fix_destination(dataset: Dataset, destination: Path) -> None:
    """Claim the folder of the copy before the long work begins.

    Args:
        dataset: The source.
        destination: A new or empty folder, or one whose copy was interrupted.

    Raises:
        UsageError: It lies in the source, or the source in it.
        DxsegError: It holds something else.
    """
    target = destination.resolve()
    if target.is_relative_to(dataset.root) or dataset.root.is_relative_to(target):
        raise UsageError(
            f"--fix {destination}: lies in the dataset {dataset.root}, or holds it; choose a "
            "folder elsewhere: the source is never changed"
        )
    open_destination(target, dataset.spec.name, overwrite=False)


def write_repaired(
    found: Survey,
    near: NDArray[np.int64],
    raised: Sequence[RowFinding],
    destination: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Repair:
    """Write a copy in which everything is mended that a program can mend.

    Images are not copied: the copy's `dataset.yaml` lists the source among its roots. Masks that
    change are written anew. `dataset.yaml` comes last, so that an interrupted copy is no dataset.

    Args:
        found: The source and what is known of its files.
        near: Near-duplicate group of each case.
        raised: What is wrong.
        destination: As `check_fix_destination` accepted it.
        progress: Called with (done, total) cases.

    Raises:
        DxsegError: No case is left.
    """
    work = _Repairs(found, near, raised, destination.resolve())
    work.drop()
    work.remove_masks()
    work.merge_duplicates()
    work.write_masks(progress)
    work.group()
    work.empty_split()
    repair = work.save()
    write_text_atomic(destination / REPAIRS_FILE, repair.model_dump_json(indent=2) + "\n")
    (destination / UNFINISHED).unlink(missing_ok=True)
    return repair


class _Repairs:
    """The copy's table as it comes about."""

    def __init__(
        self,
        found: Survey,
        near: NDArray[np.int64],
        raised: Sequence[RowFinding],
        destination: Path,
    ) -> None:
        self.found, self.near, self.destination = found, near, destination
        self.source = found.dataset
        self.cases = self.source.cases.copy()
        self.keep = np.ones(len(self.cases), np.bool_)
        self.rows = {one.code: one.rows for one in raised}
        self.mended: set[str] = set()
        self.actions: list[Action] = []
        self.extra: dict[int, list[Path]] = {}
        roots = [self.source.root, *(self.source.root / name for name in self.source.spec.roots)]
        self.roots = [root.resolve() for root in roots]

    def drop(self) -> None:
        for code in _DROP:
            rows = self.rows.get(code, np.zeros(0, np.int64))
            self._note("drop", rows[self.keep[rows]], KINDS[code].title)
            self.keep[rows] = False
            self.mended.add(code)

    def remove_masks(self) -> None:
        for code in _REMOVE_MASK:
            rows = self.rows.get(code, np.zeros(0, np.int64))
            rows = rows[self.keep[rows]]
            self._note("remove-mask", rows, KINDS[code].title)
            self.cases.loc[rows, "mask"] = ""
            self.mended.add(code)

    def merge_duplicates(self) -> None:
        """Keep the first of several cases whose image files are equal, with the masks of all."""
        exact = exact_groups(self.found)
        clear = self.keep & ~contradicting(exact, image_label_sets(self.found))
        gone = []
        for _, rows in pd.Series(np.flatnonzero(clear)).groupby(exact[clear]):
            first, *copies = rows.tolist()
            gone.extend(copies)
            for copy in copies:
                self.cases.loc[first, "label"] = (
                    self.cases.loc[first, "label"] or self.cases.loc[copy, "label"]
                )
                self.extra.setdefault(first, []).extend(self._masks(copy))
        self._note("drop", gone, "copies of an image that stays; their masks are united with its")
        self.keep[gone] = False

    def write_masks(self, progress: Callable[[int, int], None] | None) -> None:
        """Write the masks that are united or were not plain."""
        unclear = {int(row) for code in _REWRITE for row in self.rows.get(code, ())}
        united: list[int] = []
        rewritten: list[int] = []
        failed = False
        kept = np.flatnonzero(self.keep).tolist()
        for done, row in enumerate(kept, 1):
            own = self._masks(row)
            masks = list(dict.fromkeys([*own, *self.extra.get(row, ())]))
            try:
                if len(masks) > 1 or (masks and (not own or row in unclear)):
                    self._write_mask(row, masks)
                    (united if masks != own[:1] else rewritten).append(row)
            except DxsegError:
                # A further mask of another size, say: the finding stays, and so does the mask.
                failed = True
            if progress is not None:
                progress(done, len(kept))
        self._note("unite", united, "several masks of one image, united")
        self._note("rewrite-mask", rewritten, "masks that were not plain numbers")
        if not failed:
            self.mended.add("mask-left-out")

    def group(self) -> None:
        """Fill the column group, so that splits keep near-duplicates together."""
        number = link_groups(self.cases[["group"]], self.near)
        width = len(str(number.max() + 1))
        self.cases["group"] = [f"g{value + 1:0{width}}" for value in number]
        sizes = np.bincount(number[self.keep], minlength=number.max() + 1)
        together = np.flatnonzero(self.keep & (sizes[number] > 1))
        self._note("group", together, "near-duplicates, kept together by the column group")
        self.mended.update(_GROUPED)

    def empty_split(self) -> None:
        """Take back a split of the table itself that divides what belongs together."""
        if not any(code in self.rows for code in _SPLIT) or self.cases["split"].eq("").any():
            return
        self.cases["split"], self.cases["fold"] = "", pd.NA
        rows = np.flatnonzero(self.keep)
        self._note("empty-split", rows, "the columns split and fold, which divided groups")
        self.mended.update(_SPLIT)

    def save(self) -> Repair:
        kept = self.cases[self.keep].reset_index(drop=True)
        if kept.empty:
            raise DxsegError(
                f"{self.source.root}: no case is left after the repairs; see the findings in the "
                "report of a check without --fix"
            )
        roots = [str(root) for root in self.roots]
        spec = self.source.spec.model_copy(update={"roots": roots})
        Dataset.create(self.destination, spec, kept)
        left = [code for code in KINDS if code in self.rows and self._stays(code)]
        return Repair(
            destination=self.destination, cases=len(kept), actions=self.actions, left=left
        )

    def _stays(self, code: str) -> bool:
        """Whether the copy still has what a finding is about."""
        rows = self.rows[code]
        gone = len(rows) > 0 and not self.keep[rows].any()
        return code not in self.mended and KINDS[code].severity != "info" and not gone

    def _masks(self, row: int) -> list[Path]:
        """The mask files of a case that can be understood."""
        if not self.cases.loc[row, "mask"]:
            return []
        path = self.source.mask_path(self.cases.loc[row])
        return [] if path is None else [path, *self.found.left_out.get(row, ())]

    def _write_mask(self, row: int, masks: list[Path]) -> None:
        classes = len(self.source.spec.mask_classes)
        mask = read_masks_merged(masks, classes)
        facts = self.found.facts.iloc[row]
        size = (int(facts["height"]), int(facts["width"]))
        if mask.shape != size:
            raise DxsegError(f"{masks[0]}: {mask.shape} pixels, its image has {size}")
        name = f"masks/{self.cases['case_id'].iloc[row]}_repaired.png"
        while any((root / name).exists() for root in self.roots):
            # The copy's folder is searched first: the name must not hide a file of the source.
            name = f"{name.removesuffix('.png')}_.png"
        united = max(len(masks), int(facts["mask_united"]))
        write_mask(self.destination / name, mask, classes, merged_count=united)
        self.cases.loc[row, "mask"] = name

    def _note(self, action: Verb, rows: Iterable[int], reason: str) -> None:
        names = self.source.cases["case_id"].iloc[list(rows)].tolist()
        if names:
            done = Action(action=action, count=len(names), case_ids=names[:LISTED], reason=reason)
            self.actions.append(done)
