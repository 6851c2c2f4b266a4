"""That a command is a function, how commands are shown, and how they end."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import docstring_parser
import pytest

import command_tables
import dxseg
from cli_results import Ended, assert_fails, call
from dxseg.errors import UsageError

COMMANDS = dict(command_tables.commands())


def function_name(command: str) -> str:
    """The Python name of a command; `dxseg import FOLDER` would be a keyword."""
    return "find_importer" if command == "import" else re.sub("[ -]", "_", command)


def public(name: str) -> Any:
    return getattr(dxseg, function_name(name))


def test_every_public_function_is_a_command_and_the_other_way_round() -> None:
    functions = {name for name in dxseg.__all__ if inspect.isfunction(getattr(dxseg, name))}
    # create_model builds a network in memory: nothing for a command line.
    functions -= {"create_model"}
    assert functions == set(map(function_name, COMMANDS))
    for name, command in COMMANDS.items():
        assert command.default_command is public(name), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_documented_once_and_in_order(name: str) -> None:
    documented = docstring_parser.parse(public(name).__doc__)
    assert [entry.arg_name.lstrip("*") for entry in documented.params] == list(
        inspect.signature(public(name)).parameters
    )
    assert documented.short_description
    assert documented.short_description.endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_outputs_are_named_in_python_so_that_paths_cannot_be_swapped(name: str) -> None:
    parameters = inspect.signature(public(name)).parameters
    if "output" in parameters:
        assert parameters["output"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_hides_what_is_for_python(name: str) -> None:
    ended = call(*name.split(), "--help", columns=80)
    assert ended.exit_code == 0
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for hidden in ("--logger", "--callbacks", "--ready", "--no-overwrite", "--empty"):
        assert hidden not in ended.stdout


def test_commands_are_grouped_in_the_order_of_work() -> None:
    titles = re.findall(r"╭─ (\w+) ─", call("--help").stdout)
    work = ["Data", "Training", "Evaluation", "Prediction", "Deployment"]
    assert titles == [*work, "Demo", "Options"]


def run_python(script: str, *words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a script; also its computing time: the clock also measures what else the machine does."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    after = os.times()
    used = after.children_user + after.children_system
    return done, used - before.children_user - before.children_system


@pytest.mark.parametrize("words", [[], ["train"], ["import"], ["import", "dicom"], ["serve"]])
def test_help_needs_no_heavy_library_and_little_time(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from dxseg.commands.app import run\n"
        "code = run(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "print('code', code, 'heavy', sorted(heavy))\n"
    )
    done, used = run_python(script, *words, "--help")
    assert done.stdout.endswith("code 0 heavy []\n"), done.stdout + done.stderr
    # Half a second; on a slow machine as much more as the libraries of a command line take there.
    _, libraries = run_python("import cyclopts, rich.markdown")
    assert used < max(0.5, 2.5 * libraries)


def test_what_needs_no_network_loads_no_torch(phantoms: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from dxseg.commands.app import run\n"
        "data, out = sys.argv[1:]\n"
        "calls = ['info', data], ['split', data, '--out', f'{out}/splits.csv'], ['check', data]\n"
        "codes = [run(words) for words in calls]\n"
        "print('codes', codes, 'torch' in sys.modules)\n"
    )
    copy = tmp_path / "phantoms"
    shutil.copytree(phantoms, copy)
    done, _ = run_python(script, str(copy), str(tmp_path))
    assert done.stdout.endswith("codes [0, 0, 0] False\n"), done.stdout + done.stderr


def test_the_version() -> None:
    assert call("--version") == Ended(0, f"dxseg {dxseg.__version__}\n", "")


def test_completion_knows_commands_options_and_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ended = call("--install-completion", "--shell", "bash")
    assert ended.exit_code == 0, ended.output
    [script] = [path for path in tmp_path.rglob("dxseg") if path.is_file()]
    text = script.read_text(encoding="utf-8")
    for word in ("label-studio", "--max-dice-loss", "onnxruntime"):
        assert word in text


TRAIN = ("train", "data", "--out", "run")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("train",),
        ("train", "data"),
        (*TRAIN, "more"),
        ("train", "data", "--out"),
        (*TRAIN, "--logger", "x"),
        (*TRAIN, "--masks", "abc"),
        (*TRAIN, "--seed", "1.7"),
        (*TRAIN, "--seed", "0x10"),
        (*TRAIN, "--set", "stage2.steps"),
        (*TRAIN, "--preset", "gpu"),
        (*TRAIN, "--out", "another"),
        ("predict", "model", "--out", "predictions"),
        ("import", "volumes", "a", "b", "--mask-value", "2=tumour", "--mask-value", "2=cyst"),
        ("import", "volumes", "a", "b", "--mask-value", "two=tumour"),
        ("import", "volumes", "a", "b", "--bits", "12"),
        ("import", "label-studio", "a", "b", "--role", "Dr X"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_one_line(words: tuple[str, ...]) -> None:
    ended = call(*words)
    assert ended.stdout == ""
    assert_fails(ended, 2)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("import",), ("export",)], ids=str)
def test_a_group_without_a_command_shows_its_commands_and_ends_with_2(
    words: tuple[str, ...],
) -> None:
    ended = call(*words)
    assert ended.exit_code == 2
    assert ended.stdout.startswith("Usage: dxseg")


def passed_on(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, Any]:
    """What a function is called with; it is not run."""
    called: dict[str, Any] = {}

    def remember(*arguments: Any, **options: Any) -> None:
        called.update(options, arguments=arguments)
        raise UsageError("stopped")

    monkeypatch.setattr(name, remember)
    return called


def test_inputs_may_look_like_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[dict[str, Any]] = []
    name = "dxseg.inference.predictor.Predictor.from_folder"
    monkeypatch.setattr(name, lambda *_, **options: loaded.append(options))
    called = passed_on(monkeypatch, "dxseg.inference.files.predict.predict_files")
    call("predict", "model", "a[red]", "--out", tmp_path, '["b"]', "--flip", ":cat:", "--", "-x")
    assert called["arguments"] == (None, ["a[red]", '["b"]', ":cat:", "-x"], tmp_path)
    assert loaded[0]["flip"]


@pytest.mark.parametrize("name", ["run/model/model.json", "run/model.json", "run.onnx"])
def test_swapped_inputs_and_model_are_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    model = tmp_path / Path(name).parts[0]
    ended = call("predict", tmp_path / "images", model, "--out", tmp_path / "out")
    assert_fails(ended, 2, f"{tmp_path / 'images'}: not a model, but {model} is one")
    assert not (tmp_path / "out").exists()


def test_overrides_may_be_repeated_and_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    called = passed_on(monkeypatch, "dxseg.config.presets.load_config")
    call("train", "--set", "stage2.steps=5", "data", "--set", "data.image_size=64", "--out", "r")
    assert called["arguments"][2]["stage2"] == {"steps": 5}
    assert called["arguments"][2]["data"] == {"image_size": 64}


def test_a_logger_and_callbacks_of_python_reach_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = passed_on(monkeypatch, "dxseg.training.run.train_run")
    logger, callback = object(), object()
    with pytest.raises(UsageError, match="stopped"):
        dxseg.train("data", output="run", logger=logger, callbacks=[callback])
    assert (called["logger"], called["callbacks"]) == (logger, [callback])


def test_every_option_of_an_importer_reaches_the_dataset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "s" / "label").mkdir(parents=True)
    for name in ("1.png", "1-m.png"):
        (tmp_path / "s" / "label" / name).touch()
    called = passed_on(monkeypatch, "dxseg.data.importers.image_dataset.write_dataset")
    words = ["--modality", "MR", "--provenance", "here", "--licence", "none", "--mask-class", "a"]
    words += ["--mask-class", "b", "--mask-suffix", "-m"]
    call("import", "folder", tmp_path / "s", tmp_path / "d", *words)
    [case], _, _, fields = called["arguments"]
    assert [mask.name for mask in case.masks] == ["1-m.png"]
    told = {"modality": "MR", "provenance": "here", "licence": "none"}
    assert told.items() <= fields.items()
    assert fields["mask_classes"] == ["a", "b"]


def test_paths_are_printed_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "[red] :cat:"
    assert_fails(call("info", folder), 1, f"{folder}: not a dataset")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dxseg", "check", os.fsencode(tmp_path) + b"/\xff[b]"],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: ")
    assert rb"\udcff[b]" in ended.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "dxseg", "methods"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_other_ranks_print_nothing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert call("methods") == Ended(0, "", "")
    monkeypatch.setenv(variable, "0")
    assert "unet" in call("methods").stdout


def test_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="trian"):
        _ = dxseg.trian  # type: ignore[attr-defined]  # unused if mypy missed it, an error too
