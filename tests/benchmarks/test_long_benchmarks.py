"""Which benchmarks run without further flags."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SELECTION = """
import sys, pytest
for size in ("full", "small"):
    options = ["--benchmark-only", "--collect-only", "-q", "-p", "no:cacheprovider", f"--benchmark-size={size}"]
    if status := pytest.main(["-p", "pytest_benchmark.plugin", "benchmarks", *options]):
        sys.exit(status)
    print("END OF SELECTION")
"""
SOMETIMES = ("torch.compile", "mmformer", "test_prediction", "test_checkpoint", "test_configuration")


@pytest.fixture(scope="module")
def selections() -> list[str]:
    """In the full size and in the small one, by one process, which imports the benchmarks once."""
    # To a process of pytest-xdist's, pytest-benchmark would refuse.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-c", SELECTION]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return ended.stdout.split("END OF SELECTION")


def test_figures_that_matter_are_measured_and_one_line_tells_of_the_others(selections: list[str]) -> None:
    for name in ("test_loss[", "test_objective[", "test_network_step[rfnet-lean]", "test_plain"):
        assert name in selections[0]
    assert not any(name in selections[0] for name in SOMETIMES)
    assert selections[0].count("--benchmark-long takes them too") == 1


def test_small_size_takes_everything(selections: list[str]) -> None:
    assert all(name in selections[1] for name in SOMETIMES)
    assert "are left out" not in selections[1]
