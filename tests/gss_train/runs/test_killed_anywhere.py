"""Killed at any operation on its files, and started again, a run leaves what one leaves that was not."""

from __future__ import annotations

import json
from pathlib import Path

from gss_train.runs.checkpoints import read_checkpoint
from tests.gss_train.common.killed import contents, kill_everywhere


def files(folder: Path) -> dict[str, bytes]:
    """All but the name of the process that was the last to work there."""
    return {name: content for name, content in contents(folder).items() if name != "run.lock"}


def test_a_run_killed_anywhere_ends_as_one_that_was_not(tmp_path: Path) -> None:
    killed = kill_everywhere("tests.gss_train.runs.tiny_life:live", tmp_path)
    undisturbed = tmp_path / "undisturbed"
    expected = files(undisturbed)
    assert set(expected) == {
        *("config.json", "split.json", "metrics.jsonl", "baseline.pt", "subsets.csv", "subsets.md"),
        *("checkpoints/best.pt", "checkpoints/step-00000003.pt", "checkpoints/step-00000004.pt"),
    }
    assert read_checkpoint(undisturbed / "checkpoints" / "best.pt")["progress"]["step"] == 3
    steps = [json.loads(line).get("step") for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2, 3, 3, 4, None]
    assert len(killed) > 50
    for folder in killed:
        assert files(folder) == expected, folder.name
