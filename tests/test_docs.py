"""The documentation against the code: commands, options, keys and defaults that it names exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import command_tables
import dxseg
from dxseg.config import DEFAULT_METHOD
from dxseg.config.presets import load_config, method_names, parse_overrides
from dxseg.config.schema import RunConfig
from dxseg.config.stages import SelfTrainingConfig, StudentConfig
from dxseg.data.table.cases import COLUMNS
from dxseg.data.table.spec import DatasetSpec
from dxseg.experiments import aggregate, differences, mask_savings, results, retraining
from dxseg.experiments.experiment import Experiment, Hypothesis, Method, parse_experiment
from dxseg.experiments.plan import plan
from dxseg.quality.finding_types import FINDING_TYPES
from dxseg.quality.findings import (
    Action,
    ActionName,
    Auroc,
    CheckReport,
    Finding,
    Probe,
    Repair,
)
from dxseg.quality.fingerprint import Quantiles, Statistics

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


COMMANDS = dict(command_tables.commands())


def command_lines(text: str) -> Iterator[str]:
    """Every `dxseg ...` in a shell block or a code span."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("dxseg "):
                yield line.strip().split(" #")[0]
    yield from re.findall(r"`(dxseg [^`]+)`", text)


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


KNOBS = dict(
    leaves(
        RunConfig(self_training=SelfTrainingConfig(), student=StudentConfig()).model_dump(
            mode="json"
        )
    )
)


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows."""
    found = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in found]


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    for line in command_lines(read(page)):
        words = line.split()[1:]
        if words[0].startswith("-") or words[0] in ("COMMAND", "..."):
            continue
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
        if name is None:
            assert words == ["import"], f"{page.name}: {line}"
            continue
        known = command_tables.options(COMMANDS[name])
        for option in re.findall(r"(?<=\s)--[a-z0-9-]+", line):
            assert option in (*known, "--help"), f"{page.name}: {line}: {option}"
        if "--set" in words:
            changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            method = words[words.index("--method") + 1] if "--method" in words else DEFAULT_METHOD
            load_config("cpu", method, parse_overrides([c for c in changes if "KEY" not in c]))


@each_page
def test_options_in_running_text_exist(page: Path) -> None:
    every = {
        option for command in COMMANDS.values() for option in command_tables.options(command)
    } | {"--help"}
    ours = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    for span in re.findall(r"`(--[a-z0-9-]+)", ours):
        assert span in every, f"{page.name}: {span}"


@each_page
def test_knobs_that_are_named_exist(page: Path) -> None:
    sections = "|".join(key for key in RunConfig().model_dump() if key not in ("method", "seed"))
    for key in re.findall(rf"`((?:{sections})\.[a-z_0-9.]+)[`=]", read(page)):
        if key.endswith((".json", ".safetensors", ".csv")):
            continue
        assert key in KNOBS, f"{page.name}: {key}"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", read(page)):
        if not target.startswith(("http://", "https://")) and not target.endswith(".png"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@each_page
def test_python_and_data_snippets_parse(page: Path) -> None:
    text = read(page)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "dxseg":
                assert node.attr in dxseg.__all__, node.attr
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        if page.name == "compare.md":
            assert plan(parse_experiment(block, page.name))
        else:
            DatasetSpec.model_validate(yaml.safe_load(block))
    for block in re.findall(r"```csv\n(.*?)```", text, re.DOTALL):
        header, *lines = block.strip().splitlines()
        assert set(header.split(",")) <= set(COLUMNS)
        assert {line.count(",") for line in lines} == {header.count(",")}


def test_every_command_and_option_is_documented_with_its_default() -> None:
    """`python tests/command_tables.py` writes the tables from the docstrings."""
    text = read(command_tables.PAGE)
    assert set(command_tables.sections(text)) == set(COMMANDS)
    assert text == command_tables.updated(text)


def test_every_option_is_documented_with_its_default() -> None:
    table = rows(read(ROOT / "docs" / "training.md").split("## Every option")[1])
    documented = {row[0].strip("`"): row[1].strip("`") for row in table if row[0].startswith("`")}
    told = {key: yaml.safe_load(value) for key, value in documented.items()}
    assert told == KNOBS


def test_every_key_of_an_experiment_is_documented_with_its_default() -> None:
    table = rows(read(ROOT / "docs" / "compare.md").split("## Cross-validation")[0])
    keys = {"overrides": "set"}
    defaults = {
        keys.get(name, name): field.default for name, field in Experiment.model_fields.items()
    }
    documented = {row[0].strip("`"): row for row in table if row[0].startswith("`")}
    assert set(documented) == set(defaults)
    for key, row in documented.items():
        if row[1].startswith("`"):
            told = yaml.safe_load(row[1].strip("`"))
            assert told == (list(defaults[key]) if key == "masks" else defaults[key]), key
    for key, part in (("methods", Method), ("hypotheses", Hypothesis)):
        named = set(spans(documented[key][2]))
        assert {keys.get(name, name) for name in part.model_fields} <= named


def test_every_column_of_an_experiment_is_documented() -> None:
    pages = (read(ROOT / "docs" / name) for name in ("compare.md", "evaluation.md"))
    table = [row for text in pages for row in rows(text)]
    documented = {name for row in table for cell in row for name in spans(cell)}
    written = {*results.COLUMNS, *differences.DIFFERENCE_COLUMNS, *aggregate.CURVE_COLUMNS}
    assert (written | {*mask_savings.COLUMNS, *retraining.COLUMNS}) - documented == set()


def test_every_method_is_documented() -> None:
    documented = [row[0].strip("`") for row in rows(read(ROOT / "docs" / "method.md"))]
    assert set(method_names()) <= set(documented)


def test_every_field_and_column_of_a_dataset_is_documented() -> None:
    documented = {name for row in rows(read(ROOT / "docs" / "data.md")) for name in spans(row[0])}
    assert set(DatasetSpec.model_fields) | set(COLUMNS) <= documented


def test_the_tests_that_formats_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", read(ROOT / "docs" / "formats.md")))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", read(path), re.MULTILINE)
    }
    assert named
    assert named - written == set()


def test_the_example_of_volumes_runs(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = read(ROOT / "docs" / "data.md").split("### An example: the layout of LiTS")[1]
    [script] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    line = next(line for line in command_lines(text) if "import volumes" in line)
    result = cli(*line.split()[1:])
    assert result.exit_code == 0, result.output
    assert "3 volumes, 36 slices" in result.output
    assert dxseg.info("data/lits")["labels"].keys() == {"tumour", "no tumour"}


def test_every_key_of_the_json_files_is_documented(trained: Path) -> None:
    import json

    import pandas as pd

    text = read(ROOT / "docs" / "evaluation.md")
    documented = {name for row in rows(text) for cell in row for name in spans(cell)}
    evaluation = json.loads((trained / "evaluation.json").read_text())
    written = set(evaluation) | set(evaluation["counts"]) | set(evaluation["units"])
    written |= set(json.loads((trained / "run.json").read_text()))
    model = json.loads((trained / "model" / "model.json").read_text())
    written |= set(model) | set(model["preprocessing"])
    written |= set(pd.read_csv(trained / "per_image.csv").columns)
    assert written - documented == set()


def test_every_finding_is_documented_as_the_code_has_it() -> None:
    table = rows(read(ROOT / "docs" / "check.md").split("## Findings")[1].split("## ")[0])
    documented = {row[0].strip("`"): tuple(row[1:]) for row in table if row[0].startswith("`")}
    expected = {code: (t.severity, t.title, t.remedy) for code, t in FINDING_TYPES.items()}
    assert documented == expected


def test_every_key_of_the_check_is_documented() -> None:
    text = read(ROOT / "docs" / "check.md").split("## check.json")[1]
    documented = {name for row in rows(text) for cell in row for name in spans(cell)}
    models = (CheckReport, Finding, Probe, Auroc, Statistics, Repair, Action)
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    assert {name for name, field in fields.items() if not field.exclude} <= documented
    assert set(Quantiles.model_fields) <= set(spans(text))
    actions = {row[0].strip("`") for row in rows(read(ROOT / "docs" / "check.md"))}
    assert set(get_args(ActionName)) <= actions


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
