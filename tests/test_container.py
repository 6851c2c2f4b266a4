"""The Dockerfile, as far as that shows without a daemon; where there is one, the image is built."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def all_of(wanted: str) -> list[str]:
    return [rest for name, rest in instructions() if name == wanted]


def test_every_instruction_is_one_of_docker() -> None:
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "USER", "WORKDIR"}
    names = [name for name, _ in instructions()]
    assert set(names) <= known
    assert names[0] == "FROM"


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored, "nothing else may get into an image"
    for line in all_of("COPY"):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, name
    read = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src"}
    assert read == {name for line in all_of("COPY") for name in line.split()[:-1]}


def test_every_command_is_one_that_a_shell_reads_and_every_variable_is_declared() -> None:
    declared = {line.partition("=")[0] for line in all_of("ARG")}
    for line in all_of("RUN"):
        assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0, line
        assert set(re.findall(r"\$(\w+)", line)) <= declared, line


def test_the_extras_exist_and_the_python_is_one_that_the_package_takes() -> None:
    defaults = dict(line.split("=", 1) for line in all_of("ARG"))
    assert set(defaults["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    [image] = all_of("FROM")
    version = tuple(int(part) for part in re.findall(r"\d+", image)[:2])
    [least] = re.findall(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert version >= tuple(map(int, least))


def test_it_starts_the_command_and_not_as_root() -> None:
    assert all_of("ENTRYPOINT") == ['["dxseg"]']
    assert "dxseg" in PROJECT["scripts"]
    assert all_of("USER") == ["dxseg"]


@pytest.mark.slow
def test_the_image_builds_and_its_commands_run() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("needs a Docker daemon")
    tag = f"dxseg-test-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "build", "--tag", tag, str(ROOT)], check=True)
    try:
        for command in ("train", "serve"):
            run = ["docker", "run", "--rm", tag, command, "--help"]
            shown = subprocess.run(run, check=True, capture_output=True, text=True).stdout
            assert f"dxseg {command}" in shown
    finally:
        subprocess.run(["docker", "image", "rm", "--force", tag], check=False)
