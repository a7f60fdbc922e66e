"""`benchmarks/gpu.sh` with a python3 that only pretends to run pytest on a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.made_up import write_run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="the script needs timeout of GNU coreutils")
PRETENDER = """\
#!{python}
import os, pathlib, shutil, subprocess, sys

arguments = sys.argv[1:]
files = pathlib.Path({files!r})
if arguments[0] == "-c":
    if "xdist" in arguments[1]:
        sys.exit(1)
    print({card!r})
elif arguments[1] == "pytest":
    name = "tests" if arguments[2] == "tests/gpu" else "benchmarks"
    for argument in arguments:
        option, _, path = argument.partition("=")
        if option == "--junitxml":
            shutil.copy(files / (name + ".xml"), path)
        if option == "--benchmark-json":
            shutil.copy(files / "benchmarks.json", path)
    with open(files / "calls", "a") as calls:
        calls.write(name + "\\n")
    sys.exit(int((files / (name + ".status")).read_text()))
else:
    sys.exit(subprocess.run([{python!r}, *arguments]).returncode)
"""


def run_script(folder: Path, *arguments: str, tests_status: int = 0, card: str = "made-up-card") -> int:
    """Exit status of the script, whose results go into `folder / "out"`."""
    write_run(folder, tests_status)
    (folder / "bin").mkdir()
    pretender = folder / "bin" / "python3"
    pretender.write_text(PRETENDER.format(python=sys.executable, files=str(folder), card=card), encoding="utf-8")
    pretender.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OUT": str(folder / "out")}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True).returncode


@pytest.mark.parametrize("tests_status", [0, 1])
def test_failing_tests_show_in_the_exit_status_alone(tmp_path: Path, tests_status: int) -> None:
    assert run_script(tmp_path, "loss", tests_status=tests_status) == tests_status
    result = json.loads((tmp_path / "out" / "made-up-card-loss.json").read_text(encoding="utf-8"))
    assert (tmp_path / "calls").read_text(encoding="utf-8").split() == ["tests", "benchmarks"]
    assert result["tests"]["exit_status"] == tests_status
    assert result["groups"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["made-up-card-loss.json"]


@pytest.mark.parametrize("what", ["networks", "step"])
def test_networks_run_no_tests(tmp_path: Path, what: str) -> None:
    assert run_script(tmp_path, what) == 0
    assert (tmp_path / "calls").read_text(encoding="utf-8").split() == ["benchmarks"]


@pytest.mark.parametrize(("arguments", "card"), [(("nothing",), "made-up-card"), ((), "")], ids=["unknown", "no GPU"])
def test_what_cannot_run_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], card: str) -> None:
    assert run_script(tmp_path, *arguments, card=card) == 2
    assert not (tmp_path / "out").exists()
