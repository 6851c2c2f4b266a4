"""Patients from a table, from a pattern, or derived from names, coarse rather than fine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from cli_results import call
from dxseg.commands.import_csv import import_csv
from dxseg.data.importers.patient_names import known_patients
from dxseg.data.importers.patients import PatientRules, find_patients
from dxseg.data.table.dataset import Dataset
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
    ("folders", "patients"),
    [
        (["GLI-00005-000", "GLI-00005-001", "GLI-00006-000", "GLI-00009-000"], [0, 0, 1, 2]),
        (["PDGM-0004", "PDGM-0005", "PDGM-0004_FU016d", "PDGM-0006"], [0, 1, 0, 2]),
        (["site-2021-001", "site-2021-002", "site-2021-003"], [0, 1, 2]),
        (["IMD001-1", "IMD001-2", "IMD001-3"], [0, 1, 2]),
    ],
)
def test_time_points_of_one_patient_are_one_patient(
    folders: list[str], patients: list[int]
) -> None:
    """A year is no patient, and not everything is one."""
    found = derived(*[f"{folder}/t1.nii.gz" for folder in folders])
    assert [list(dict.fromkeys(found)).index(name) for name in found] == patients


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


@pytest.mark.parametrize(
    ("files", "patients"),
    [
        (["Patient12/a.png", "patient_12/b.png", "x/PATIENT-12.png", "Patient12_c.png"], [12] * 4),
        (["sub-01/a.nii", "SUB-01_T1w.nii", "sub-1/b.nii", "sub-01/c.nii"], [1, 1, 2, 1]),
        (["IMD_003/a.png", "imd003/b.png", "IMD 003/c.png", "IMD004/d.png"], [3, 3, 3, 4]),
        (
            [f"{name}.nii" for name in ("p7_t1", "P_7_t2", "P8_t1", "P8_t2", "P9_t1", "P9_t2")],
            [7, 7, 8, 8, 9, 9],
        ),
    ],
)
def test_spellings_of_a_derived_patient_are_one(files: list[str], patients: list[int]) -> None:
    found = find_patients(paths(*files), PatientRules())
    names = dict(zip(found.names, patients, strict=True))
    assert [names[name] for name in found.names] == patients
    assert len(names) == len(set(patients))
    assert "other spellings of these names" in found.notes[1]


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
        (
            "image,patient\ny,NA\n",
            "'patient' names no patient, but has words for nothing such as 'NA'",
        ),
        ("image,age\ny,4\n", "expected rows of patient_id"),
        ("image,patient\n", "expected rows of patient_id"),
    ],
)
def test_tables_that_leave_a_question_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DxsegError, match=rf"patients\.csv.*{words}"):
        read(tmp_path, text)


def make_images(root: Path) -> None:
    for label in ("benign", "malignant"):
        for number in range(6):
            path = root / label / f"P{number // 2}" / f"{label}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(len(label) * 10 + number)
            Image.fromarray(noise.integers(0, 255, (16, 16), np.uint8)).save(path)


def patients_of(dataset: Path) -> list[str]:
    return Dataset.load(dataset).cases["patient_id"].tolist()


def test_patients_of_folders_are_derived_and_split_and_check_say_so(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    out = tmp_path / "out"
    result = call("import", "folder", tmp_path / "images", out)
    assert result.exit_code == 0
    assert (
        "3 derived from folder names, such as 'P0', for 12 of 12; this is a guess" in result.stdout
    )
    assert patients_of(out) == ["P0", "P0", "P1", "P1", "P2", "P2"] * 2
    result = call("split", out, "--out", tmp_path / "s.csv")
    assert (
        "patient_id is derived from folder names: the unit of the split is a guess" in result.stdout
    )
    result = call("check", out, "--workers", 1)
    assert "patient-guessed" in result.stdout
    assert "patient-missing" not in result.stdout


@pytest.mark.parametrize("options", [["--patients", "p.csv"], ["--patient-pattern", r"/P(\d)/"]])
def test_given_patients_of_folders_are_no_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images")
    Path("p.csv").write_text("folder,patient\nP0,0\nP1,1\nP2,2\n")
    result = call("import", "folder", "images", "out", *options)
    assert result.exit_code == 0
    assert patients_of(tmp_path / "out") == ["0", "0", "1", "1", "2", "2"] * 2
    assert "guess" not in call("split", "out", "--out", "s.csv").stdout


def test_a_split_without_patients_is_a_guess(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    csv = tmp_path / "t.csv"
    rows = [f"images/benign/P{n // 2}/benign{n}.png,{'NA' if n else 'A'}" for n in range(6)]
    csv.write_text("\n".join(["image,pid", *rows]))
    columns = {"image": "image", "patient_id": "pid"}
    import_csv(csv, tmp_path / "out", columns=columns)
    assert patients_of(tmp_path / "out") == ["A", "", "", "", "", ""]
    result = call("split", tmp_path / "out", "--out", tmp_path / "s.csv")
    assert (
        "5 of 6 cases name no patient and are kept together 5 by near-duplicates" in result.stdout
    )
    report = import_csv(csv, tmp_path / "out2", columns={"image": "image"}, name="2")
    assert patients_of(tmp_path / "out2") == ["P0", "P0", "P1", "P1", "P2", "P2"]
    assert "derived from folder names" in str(report)


@pytest.mark.parametrize(
    ("folders", "are"),
    [
        (["sub-1", "sub-2", "sub-3"], True),
        (["patient1", "patient2", "patient3"], True),
        ([f"TCGA_CS_49{n:02}_19960909" for n in range(4)], True),
        (["case_001", "case_002", "case_003"], True),
        ([f"P{n}" for n in range(10)], True),
        (["sub-1", "sub-2"], True),
        ([], False),
        (["sub-1", "sub-2", "benign"], False),
        (["T1", "T2", "T3", "T4"], False),
        ([f"grade {n:03}" for n in range(12)], False),
        (["n02085620-Chihuahua", "n02085782-Spaniel", "n02085936-Terrier"], False),
        (["benign", "malignant", "normal"], False),
    ],
)
def test_folders_named_like_patients_are_no_labels(folders: list[str], are: bool) -> None:
    assert known_patients(folders) is are
