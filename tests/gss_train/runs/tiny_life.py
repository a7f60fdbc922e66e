"""The files of a whole run without its training: a state of three tensors, stepped and saved as a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gss_train.runs.checkpoints import CheckpointStore, save_checkpoint
from gss_train.runs.folder import RunFolder, run_status

_STEPS = 4
_BEST = {2, 3}


def live(output: Path) -> None:
    """Begin, or go on, and come to the end."""
    with RunFolder.open(output, resume=True) as folder:
        if run_status(output) == "finished":
            return
        folder.write_json("split.json", {"train": ["a"]})
        folder.write_json("config.json", {"run": {"seed": 0}})
        state = _begin(folder)
        while state["progress"]["step"] < _STEPS:
            _step(folder, state)
        folder.log_metrics({"kind": "test"})
        folder.write_text("subsets.csv", "subset\n")
        folder.write_text("subsets.md", "| subset |\n")


def _store(folder: RunFolder) -> CheckpointStore:
    return CheckpointStore(folder.checkpoints, keep=2)


def _begin(folder: RunFolder) -> dict[str, Any]:
    def damaged(message: str) -> None:
        raise AssertionError(message)

    state = _store(folder).newest(damaged)
    if state is None:
        weights = {name: torch.arange(4.0) + number for number, name in enumerate("abc")}
        state = {"weights": weights, "progress": {"step": 0, "best_step": None, "metrics_length": 0}}
    progress = state["progress"]
    if progress["step"] > 0:
        _store(folder).tidy(progress["step"])
        _store(folder).settle_best(progress["best_step"])
    folder.cut_metrics(progress["metrics_length"])
    return state


def _step(folder: RunFolder, state: dict[str, Any]) -> None:
    progress = state["progress"]
    progress["step"] += 1
    state["weights"] = {name: value * 1.25 + progress["step"] for name, value in state["weights"].items()}
    folder.log_metrics({"kind": "steps", "step": progress["step"], "sum": float(sum(state["weights"].values()).sum())})
    if progress["step"] in _BEST:
        folder.log_metrics({"kind": "validation", "step": progress["step"]})
        progress["best_step"] = progress["step"]
    progress["metrics_length"] = folder.metrics_length()
    if progress["step"] == 3:
        save_checkpoint(folder.stage_checkpoint("baseline"), state)
    best = (progress["step"], state) if progress["best_step"] == progress["step"] else None
    _store(folder).save(progress["step"], state, best)
