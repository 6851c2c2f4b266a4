"""The command `dxseg import nnunet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from dxseg.commands.dry_run import with_dry_run
from dxseg.commands.options import (
    LesionClasses,
    LesionFree,
    PatientPattern,
    PatientTable,
    SlicingOptions,
    StrPath,
)
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any


@with_dry_run
def import_nnunet(
    source: StrPath,
    destination: StrPath,
    *,
    labels: StrPath | None = None,
    lesion_free: LesionFree = (),
    lesion_classes: LesionClasses = (),
    slice_labels_known: bool = False,
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    name: str | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
    **slicing: Unpack[SlicingOptions],
) -> ImportReport:
    """Import a raw dataset of nnU-Net v2, images or NIfTI volumes, with a table of labels.

    Images of `imagesTr` get their mask from `labelsTr`, those of `imagesTs` from `labelsTs` if
    there is one. Channels in separate files are stacked into one TIFF; other images are not copied.
    A mask with the value `ignore` is left out, its image is kept. No split is taken over. Volumes
    become slices; their channels are sequences, named as in `dataset.json`. The masks of slices
    with the value `ignore` are unknown.

    Args:
        source: Folder `DatasetXXX_Name` with `dataset.json`.
        destination: Folder of the new dataset.
        labels: Table with the columns `case_id` and `label`, and perhaps `patient_id`.
        lesion_free: A label whose images have no lesion, so that their masks are empty. May be
            repeated.
        lesion_classes: A mask class that is a lesion (volumes only); default: all. May be repeated.
        slice_labels_known: The labels of slices are known without the label maps (volumes only);
            default: of a volume whose label map is hidden only its own label is known.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            those of `labels`, else derived from names and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of an image or the name of
            a volume; its first group, or the match, is the patient.
        name: Dataset name; default: folder name.
        modality: Free text, such as `ultrasound`.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.
        **slicing: How volumes become slices; see `SlicingOptions`.

    Raises:
        UsageError: Options for volumes are given for images.
        DxsegError: `dataset.json` or the table of labels is wrong, or the destination has other
            files.
    """
    from dxseg.data.exporters.nnunet_format import (
        DESCRIPTION_FILE,
        class_names,
        read_description,
    )
    from dxseg.data.importers import nnunet
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.labels import describe_labels
    from dxseg.data.importers.names import plain_name
    from dxseg.data.importers.patients import PatientRules, fill_patients
    from dxseg.data.importers.report import LeftOut
    from dxseg.data.importers.volume_dataset import write_volumes
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.data.readers.volume_files import VOLUME_FORMATS
    from dxseg.io.progress import console, reporting

    folder = Path(source).resolve()
    rules = PatientRules(patients, patient_pattern, folder)
    description = read_description(folder)
    fields: dict[str, Any] = {
        "name": name or folder.name,
        "modality": modality,
        "provenance": provenance,
        "licence": licence,
    }
    skipped = LeftOut()
    classes, ignore = class_names(description.labels, folder / DESCRIPTION_FILE)
    if description.file_ending in VOLUME_FORMATS:
        rule = make_slicing(sequences=nnunet.channel_suffixes(description), **slicing)
        volumes = nnunet.find_raw_volumes(folder, description, skipped)
        cases = [volume.volume_id for volume in volumes]
        nnunet.note_unused_masks(folder, description.file_ending, cases, skipped)
        with reporting(console, "Importing") as progress:
            return write_volumes(
                volumes,
                destination,
                fields,
                slicing=rule,
                mask_values=dict(enumerate(classes, 1)),
                lesion_classes=lesion_classes,
                lesion_free=lesion_free,
                slice_labels_known=slice_labels_known,
                ignore_value=ignore,
                labels=labels,
                label_columns={"volume_id": "case_id"},
                patients=rules,
                skipped=skipped,
                overwrite=overwrite,
                progress=progress,
            )
    if slicing or lesion_classes or slice_labels_known:
        raise UsageError(
            f"{folder}: contains images; slicing, lesion classes and labels of slices are for "
            "volumes; leave these options out"
        )
    images = nnunet.find_raw_images(folder, description, skipped)
    cases = [plain_name(case.values["case_id"]) for case in images]
    nnunet.note_unused_masks(folder, description.file_ending, cases, skipped)
    fields |= {"lesion_free": list(lesion_free), "mask_classes": classes}
    fields["labels"] = []
    notes: list[str] = []
    if labels is not None:
        fields["labels"], notes = nnunet.assign_labels(images, labels, fields)
    known = fill_patients(images, rules)
    fields["patients_from"] = known.derived_from
    with reporting(console, "Importing") as progress:
        report = write_dataset(
            images,
            folder,
            destination,
            fields,
            skipped=skipped,
            overwrite=overwrite,
            progress=progress,
        )
    report.notes.extend(
        [*notes, *known.notes, *describe_labels(fields["labels"], lesion_free, multi_label=False)]
    )
    if ignore is not None:
        report.notes.append(f"masks with the value {ignore} (ignore) are among those skipped")
    return report
