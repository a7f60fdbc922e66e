"""Which benchmarks run without further flags."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def collect(*options: str) -> str:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--collect-only", "-q", *options]
    # To a process of pytest-xdist's, pytest-benchmark would refuse.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return ended.stdout


def test_figures_that_matter_are_measured_and_one_line_tells_of_the_others() -> None:
    selected = collect()
    for name in ("test_loss[", "test_objective[", "test_network_step[rfnet-lean]", "test_plain"):
        assert name in selected
    for name in ("torch.compile", "mmformer", "test_prediction", "test_checkpoint", "test_configuration"):
        assert name not in selected
    assert selected.count("--benchmark-long takes them too") == 1


def test_small_size_takes_everything() -> None:
    selected = collect("--benchmark-size=small")
    for name in ("torch.compile", "mmformer", "test_prediction", "test_checkpoint", "test_configuration"):
        assert name in selected
    assert "are left out" not in selected
