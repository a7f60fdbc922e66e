"""Reads what a report shows of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gss_train.common import UserError
from gss_train.config import with_defaults
from gss_train.evaluation import Evaluation, SegmentedSubject, is_evaluation, read_evaluation, read_segmented
from gss_train.runs import EpochRecord, StepRecord, ValidationRecord, read_json, read_records

BASELINE, LONGER_BASELINE, GSS = "baseline", "longer baseline", "GSS"


@dataclass(frozen=True)
class ReportedRun:
    """A run, or an evaluation without one.

    Attributes:
        name: of its folder; in a report no other has it.
        evaluation: its scores.
        segmented: subjects to look at.
        settings: all of them, by "section.name"; empty without a run.
        environment: what it ran on; empty without a run.
        epochs: of its training; empty without a run.
        validations: likewise.
        steps: likewise.
        seconds: that it trained for; None without a run.
    """

    name: str
    evaluation: Evaluation
    segmented: tuple[SegmentedSubject, ...]
    settings: dict[str, Any]
    environment: dict[str, Any]
    epochs: tuple[EpochRecord, ...] = ()
    validations: tuple[ValidationRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    seconds: float | None = None

    @property
    def seed(self) -> int | None:
        """Of the run, if it is one."""
        return self.settings.get("run.seed")

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.settings.get("network.network", self.evaluation.settings.get("network", "network")))

    @property
    def is_phantom(self) -> bool:
        """Whether its subjects are known to be simulated."""
        return bool(self.settings) and self.settings["data.data_root"] is self.settings["data.manifest"] is None

    @property
    def arm(self) -> str:
        """What it trained, for people: GSS, or a baseline, which is longer if it started from one."""
        if not self.settings:
            return self.name
        if self.settings["training.gss"]:
            return GSS
        return BASELINE if self.settings["training.init_from"] is None else LONGER_BASELINE


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Read runs, each once, in the order given.

    Raises:
        UserError: a folder is none of a finished run or an evaluation, or its files cannot be understood.
    """
    different = list({folder.resolve(): folder for folder in folders}.values())
    names = [folder.resolve().name for folder in different]
    return [
        _read_run(folder, name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}")
        for folder, name in zip(different, names, strict=True)
    ]


def _read_run(folder: Path, name: str) -> ReportedRun:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, need that of a finished run")
    if is_evaluation(folder):
        return ReportedRun(name, read_evaluation(folder), tuple(read_segmented(folder)), {}, {})
    scores = folder / "evaluation"
    if not is_evaluation(scores):
        raise UserError(f"{folder}: has no scores; if it is that of a run: python -m gss_train.evaluate {folder}")
    records, config = read_records(folder / "metrics.jsonl"), with_defaults(read_json(folder / "config.json"))
    return ReportedRun(
        name,
        read_evaluation(scores),
        tuple(read_segmented(scores)),
        {f"{section}.{name}": value for section, options in config.items() for name, value in options.items()},
        read_json(folder / "environment.json"),
        tuple(records.epochs),
        tuple(records.validations),
        tuple(records.steps),
        records.seconds,
    )
