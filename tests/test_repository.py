"""Rules that the repository keeps: sizes, packaging, and nothing of one machine in it."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES = 400


def tracked() -> list[Path]:
    """Files that git knows; where there is no git, the folders that are ours."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("src", "tests", "docs", "benchmarks")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def test_no_file_holds_the_path_of_this_checkout() -> None:
    if len(ROOT.parts) < 3:
        pytest.skip("the checkout's path is too short to be telling")
    own = str(ROOT).encode()
    assert [str(path) for path in tracked() if own in path.read_bytes()] == []


def test_no_file_holds_a_home_folder() -> None:
    home = re.compile(rb"/(?:home|Users)/[a-z]|/root/|[A-Z]:\\Users")
    checked = [path for path in tracked() if path != Path(__file__).resolve()]
    assert [str(path) for path in checked if home.search(path.read_bytes())] == []


def test_source_files_stay_readable_in_one_sitting() -> None:
    sizes = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "src").rglob("*.py")
    }
    assert {str(path): lines for path, lines in sizes.items() if lines > LINES} == {}


def test_tests_mirror_the_source() -> None:
    source, tests = ROOT / "src" / "dxseg", ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    beside = {Path(), Path("faults"), Path("fuzz")}  # of the whole: repository, documents, damage
    assert [str(path) for path in folders - beside if not (source / path).is_dir()] == []


def test_the_table_of_rooms_is_that_of_the_folders() -> None:
    source = ROOT / "src" / "dxseg"
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    purposes = {
        path.parent.name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        for path in source.glob("*/__init__.py")
    }
    assert rooms == {name: (text or "").splitlines()[0] for name, text in purposes.items()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    levels = {name: n for n, row in enumerate(layers) for name in re.findall(r"\w+", row)}
    listed = [levels[name] for name in rooms]
    assert listed == sorted(listed), "the table goes from top to bottom"


def test_the_readme_uses_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\bmake ([a-z]+)\b(?=[`\s])", text)) - {"sure"}
    assert {"demo", "test"} <= used <= makefile_targets()


def test_ci_lints_documents_packages_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "must be executable"
    for target in ("test", "lint", "docs", "package"):
        assert re.search(rf"^make {target}\b", script.read_text(encoding="utf-8"), re.MULTILINE)


def test_what_the_package_reads_is_packaged() -> None:
    package = resources.files("dxseg")
    for name in ("config/methods.yaml", "config/cpu.yaml", "py.typed"):
        assert (package / name).is_file(), name
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["dxseg"]
    source = ROOT / "src" / "dxseg"
    packaged = {path for pattern in patterns for path in source.glob(pattern)}
    data = {
        path
        for path in source.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith(".")
    }
    assert data <= packaged, "a file would be missing from the wheel"


def test_the_licence_is_the_one_declared() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert settings["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_citation_names_version_and_paper() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert citation["license"] == settings["project"]["license"]
    assert any("2406.14958" in str(reference) for reference in citation["references"])
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changes, re.MULTILINE)
    assert not released or citation["version"] == released[0], "of the newest release"


def test_the_version_comes_from_tags_and_has_a_value_without_git() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in settings["project"]["dynamic"]
    assert "version" not in settings["project"], "it would win over the tag"
    assert any(name.startswith("setuptools-scm") for name in settings["build-system"]["requires"])
    assert settings["tool"]["setuptools_scm"]["fallback_version"]


def test_no_code_can_unpickle() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert "pickle" not in ast.unparse(node), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                assert "allow_pickle=True" not in ast.unparse(node), path


def test_no_image_and_no_medical_file_comes_in_but_the_pictures_of_the_documentation() -> None:
    """The hook of pre-commit, for those who did not install it: it could be a patient's."""
    import yaml

    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [hook] = [hook for hook in hooks["repos"][0]["hooks"] if hook["id"] == "no-images"]
    refused, allowed = re.compile(hook["files"]), re.compile(hook["exclude"])
    for name in ("scan.png", "tests/data/P17.DCM", "a/volume.nii.gz", "docs/images/a/b.jpg"):
        assert refused.search(name), name
        assert not allowed.search(name), name
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert [name for name in names if refused.search(name) and not allowed.search(name)] == []


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/explanation/faults.md"])
def test_the_tests_that_tables_of_threats_and_faults_name_exist(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(named) > 10
    assert named - written == set()
