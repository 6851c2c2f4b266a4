"""Patients from a table, from a pattern, or derived from names, coarse rather than fine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from dxseg.data.importers.patients import PatientRules, find_patients
from dxseg.errors import DxsegError, UsageError

ROOT = Path("/data")


def paths(*names: str) -> list[PurePosixPath]:
    return [PurePosixPath(name) for name in names]


def derived(*names: str, labels: tuple[str, ...] = ()) -> list[str]:
    return find_patients(paths(*names), PatientRules(), labels=labels).names


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz", "sub-01"),
        ("sub-A7_ses-2_FLAIR.nii.gz", "sub-A7"),
        ("derivatives/x/sub-03/anat/lesion.nii", "sub-03"),
        ("benign/patient_012_left.png", "patient_012"),
        ("Subject 4/a.png", "Subject 4"),
    ],
)
def test_names_that_say_so(name: str, patient: str) -> None:
    assert derived(name, "other.png") == [patient, ""]


@pytest.mark.parametrize(
    "layout",
    [
        ["{0}/{0}_flair.nii.gz", "{0}/{0}_t1.nii.gz"],
        ["HGG/{0}/{0}_flair.nii.gz", "LGG/{0}/{0}_t1.nii.gz"],
        ["{0}/flair.nii", "{0}/t1.nii"],
        ["images/{0}/2019-01-02/1.png", "images/{0}/2020-03-04/1.png"],
        ["{0}/visit1/x.nii", "{0}/visit2/x.nii"],
        ["benign/{0}/1.png", "malignant/{0}/7.png"],
        ["{0}/1.3.6.1.4.1/a.dcm", "{0}/1.3.6.1.4.2/a.dcm"],
        ["{0}_flair.nii.gz", "{0}_ses-1_t1ce.nii.gz"],
    ],
)
def test_the_highest_folder_of_a_patient_or_the_name_without_sequence(layout: list[str]) -> None:
    patients = [f"B_{number:03d}" for number in range(5)]
    files = [path.format(patient) for patient in patients for path in layout]
    expected = [patient for patient in patients for _ in layout]
    assert derived(*files, labels=("benign", "malignant")) == expected


@pytest.mark.parametrize(
    "files",
    [
        [f"{n}.png" for n in range(9)],
        [f"benign/img{n}.png" for n in range(9)],
        [f"center{n % 3}/{n}.png" for n in range(9)],
        [f"grade_{n % 4}/{n}.png" for n in range(9)],
        [f"imagesTr/liver_{n}.nii.gz" for n in range(9)],
        [f"L{n % 3}/{n}.png" for n in range(9)],
    ],
)
def test_other_names_are_no_patients(files: list[str]) -> None:
    found = find_patients(paths(*files), PatientRules(), labels=("L0", "L1", "L2"))
    assert found.names == [""] * 9
    assert found.derived_from is None
    assert "no patient is named" in found.notes[0]


def test_what_is_derived_is_told_as_a_guess() -> None:
    found = find_patients(paths("sub-1.png", "sub-1/a.png", "b.png"), PatientRules())
    assert found.derived_from == "subject names"
    assert found.notes == [
        "patients: 1 derived from subject names, such as 'sub-1', for 2 of 3; this is a "
        "guess: if it is wrong, give --patients FILE or --patient-pattern REGEX"
    ]


def test_a_pattern() -> None:
    files = paths("a/P1_x.png", "b/P1_y.png", "c/z.png")
    found = find_patients(files, PatientRules(pattern=r"/(P\d)"))
    assert found.names == ["P1", "P1", ""]
    assert found.derived_from is None
    assert "does not match 1 paths, such as 'c/z.png'" in found.notes[1]
    assert find_patients(files, PatientRules(pattern="^.")).names == ["a", "b", "c"]
    with pytest.raises(DxsegError, match=r"matches none of 3 paths, such as 'a/P1_x\.png'"):
        find_patients(files, PatientRules(pattern="Q"))
    with pytest.raises(UsageError, match="no regular expression"):
        PatientRules(pattern="(")
    with pytest.raises(UsageError, match="give one of them"):
        PatientRules(Path("t.csv"), "P")


FILES = paths("b/P1/x.png", "b/P2/x.png", "m/P1/y.nii.gz", "m/deep/P3/z.png")


def read(tmp_path: Path, text: str) -> list[str]:
    table = tmp_path / "patients.csv"
    table.write_text(text, encoding="utf-8")
    return find_patients(FILES, PatientRules(table, root=ROOT)).names


@pytest.mark.parametrize(
    ("text", "patients"),
    [
        ("image,patient_id\nb/P1/x.png,A\nb/P2/x,B\ny,A\nZ.PNG,7.0\n", "A B A 7"),
        ("folder;Patient\nP1;A\nb/P2;B\n", "A B A ."),
        ("folder,subject\nP1,A\nm,B\n", "A . B B"),
        ("image,patient\nP1,A\nb/P1/x.png,B\nm/P1/y.nii.gz,?\n", "B . A ."),
        ("what,pid\nb\\P1\\x.png,A\n/data/m/deep/P3/z.png,B\n", "A . . B"),
    ],
)
def test_a_table_of_patients_alone(tmp_path: Path, text: str, patients: str) -> None:
    assert read(tmp_path, text) == [name.strip(".") for name in patients.split()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,patient\nx.png,A\n", r"row 2: 'x\.png' is the name of 2 files"),
        ("image,patient\ny,A\ny,B\n", "rows 2 and 3 give m/P1/y.nii.gz different patients"),
        ("image,patient\nq.png,A\n", r"none of its 1 rows.*'q\.png', expected paths such as"),
        ("image,patient\ny,NA\n", "none of its 1 rows names an image with a patient"),
        ("image,age\ny,4\n", "expected rows of patient_id"),
        ("image,patient\n", "expected rows of patient_id"),
    ],
)
def test_tables_that_leave_a_question_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DxsegError, match=rf"patients\.csv.*{words}"):
        read(tmp_path, text)
