"""One plane for all volumes of a dataset.

The coarsest spacing shows how a volume was acquired, but one thin-slice scan among others has it
along another axis: its slices would be coronal among axial ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from dxseg.data.readers.sliced_volume import through_plane
from dxseg.data.readers.slicing import Plane, Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.errors import DxsegError

_PREFERRED: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
_LISTED = 10


def decide_axis(volumes: Sequence[FoundVolume], slicing: Slicing) -> tuple[Slicing, list[str]]:
    """Choose the plane in which most volumes were acquired, unless the rule names one.

    Args:
        volumes: The volumes; those whose grid cannot be read have no vote.
        slicing: The rule.

    Returns:
        The rule with that plane, and lines of the report that name volumes of another plane.
    """
    if slicing.axis != "through-plane":
        return slicing, []
    own: dict[str, Plane] = {}
    for volume in volumes:
        if volume.grid is not None:
            with suppress(DxsegError):
                own[volume.volume_id] = through_plane(volume.grid()[0])
    if not own:
        return slicing, []
    planes = list(own.values())
    chosen = max(_PREFERRED, key=planes.count)
    others = [name for name, plane in own.items() if plane != chosen]
    notes = []
    if others:
        more = ", ..." if len(others) > _LISTED else ""
        notes.append(
            f"{len(others)} of {len(own)} volumes have their coarsest spacing across another plane "
            f"than {chosen}; they are sliced {chosen} as the others: "
            f"{', '.join(others[:_LISTED])}{more}"
        )
    return slicing.model_copy(update={"axis": chosen}), notes
