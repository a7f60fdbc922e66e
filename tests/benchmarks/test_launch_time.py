"""The benchmark of what a call takes before a card has anything to do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)


@pytest.mark.usefixtures("triton_cache")
def test_every_function_has_its_two_times() -> None:
    command = [sys.executable, "-m", "benchmarks.launch_time", "--repeats", "1", "--rounds", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    _, *lines = done.stdout.splitlines()
    names = ("fused_gss_loss", "fused_gss_loss, M tensors, available", "fused_gss_objective", "fused_segmentation_loss")
    for name, line in zip(names, lines[: len(names)], strict=True):
        assert all(int(number) > 0 for number in line.removeprefix(name).split()[:2])
