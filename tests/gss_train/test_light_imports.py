"""What a GPU machine with little else runs, and `--help`, import no more than they need."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ("torch", "triton", "numpy", "pytest", "pytest-benchmark")
HEAVY = ("torch", "monai", "SimpleITK", "nibabel", "matplotlib")
COMMANDS = ("main", "prepare", "evaluate", "predict", "experiment", "report")
OWN = ("gss_kernels", "gss_train", "benchmarks", "tests")
MODULES = (
    "gss_train.data.augmentation",
    "gss_train.data.crops",
    "gss_train.models.registry",
    "gss_train.training.objective",
    "gss_train.training.loop",
    "benchmarks.conftest",
    "benchmarks.stages",
    "benchmarks.test_training_step",
    "benchmarks.train.__main__",
    "benchmarks.train.packed",
    "tests.conftest",
    "tests.gpu.test_step",
)
PROGRAM = """\
import importlib, json, sys

blocked = set(json.loads(sys.argv[1]))

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *arguments):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, *arguments)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
for module in json.loads(sys.argv[2]):
    importlib.import_module(module)
"""
HELP = """\
import runpy, sys

command, *heavy = sys.argv[1:]
sys.argv[1:] = ["--help"]
try:
    runpy.run_module(f"gss_train.{command}", run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert not ended.code
print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
"""


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def with_requirements(names: tuple[str, ...]) -> set[str]:
    """Distributions that are installed with these, by their names."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = normalised(pending.pop())
        if name in found:
            continue
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        pending += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    return found


def import_without_others(modules: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh process where only what is given can be imported beside the project."""
    given = with_requirements(GIVEN)
    blocked = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if module not in OWN and all(normalised(owner) not in given for owner in owners)
    ]
    command = [sys.executable, "-c", PROGRAM, json.dumps(blocked), json.dumps(modules)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_runs_on_a_gpu_machine_needs_nothing_else() -> None:
    done = import_without_others(MODULES)
    assert done.returncode == 0, done.stderr


def test_others_cannot_be_imported_there() -> None:
    done = import_without_others(("tyro",))
    assert done.returncode == 1
    assert "No module named 'tyro'" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_waits_for_no_heavy_package(command: str) -> None:
    arguments = [sys.executable, "-c", HELP, command, *HEAVY]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert "usage: " in done.stdout
