"""All arms of the comparison one after the other, each with its part of the time."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import machine
from benchmarks.lines import Lines
from benchmarks.train.arm import ARMS, NETWORK, Arm, ArmSettings, PlannedArm, scoring, seeded_network, train_arm
from benchmarks.train.process import CallError, call_in_process
from benchmarks.train.scores import FEWEST_SCORED
from benchmarks.train.subjects import Subjects
from gss_train.inference import pick_precision

_GPU_WORKERS = 4
_PACKAGES = ("torch", "triton", "numpy")
_LONGEST_ERROR = 1000
_SCORING_SHARE = 0.5
_SCORING_MARGIN = 1.25


class Plan(NamedTuple):
    """What each arm has time for.

    Attributes:
        arm_seconds: all of it.
        scoring_seconds: what of it is kept for scoring.
        scored: how many held-out subjects that is.
    """

    arm_seconds: float
    scoring_seconds: float
    scored: int


@dataclass(frozen=True)
class Comparison:
    """All that is to be done.

    Attributes:
        settings: of the arms.
        subjects: to train on and to score.
        seeds: of the arms.
        device_type: "cpu", or None for a GPU if there is one.
        end: when to be over, by `time.monotonic`.
        header: what the first line says besides.
        lines: where results go.
    """

    settings: ArmSettings
    subjects: Subjects
    seeds: tuple[int, ...]
    device_type: str | None
    end: float
    header: dict[str, Any]
    lines: Lines

    def run(self) -> int:
        """Train all arms.

        Returns:
            How many failed; if nothing could begin, all of them.
        """
        runs = [(seed, arm) for seed in self.seeds for arm in ARMS]
        try:
            device_type, settings, plan = call_in_process(self.begin, len(runs))
        except CallError as error:
            self._write_error(str(error), None, None)
            return len(runs)
        failed = 0
        with tempfile.TemporaryDirectory() as folder:
            steps: dict[tuple[int, Arm], int] = {}
            for number, (seed, arm) in enumerate(runs):
                limit = steps.get((seed, "gss"), settings.steps) if arm == "longer" else settings.steps
                now = time.monotonic()
                end = min(now + plan.arm_seconds, now + (self.end - now) / (len(runs) - number))
                planned = PlannedArm(
                    arm, seed, Path(folder) / f"{seed}.pt", limit, end - plan.scoring_seconds, end, plan.scored
                )
                try:
                    steps[seed, arm] = call_in_process(
                        train_arm, planned, settings, self.subjects, device_type, self.lines
                    )
                except CallError as error:
                    self._write_error(str(error), arm, seed)
                    failed += 1
        return failed

    def _write_error(self, text: str, arm: Arm | None, seed: int | None) -> None:
        for subject in (*self.subjects.training, *self.subjects.held_out):
            text = text.replace(subject.name, "(a subject)")
        self.lines.write("error", arm=arm, seed=seed, error=text[:_LONGEST_ERROR])

    def begin(self, runs: int) -> tuple[str, ArmSettings, Plan]:
        """Say what is done where, find out how long scoring takes, and divide the time."""
        device = machine.pick_device() if self.device_type is None else torch.device(self.device_type)
        settings = self.settings
        if device.type == "cuda":
            settings = dataclasses.replace(settings, workers=min(_GPU_WORKERS, os.cpu_count() or 1))
        self.lines.write(
            "header",
            **self.header,
            card=machine.facts(device),
            versions={"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
            network=NETWORK,
            precision=pick_precision("auto", device),
            settings=dataclasses.asdict(settings),
            seeds=self.seeds,
            dataset=self.subjects.dataset.name,
            training_subjects=len(self.subjects.training),
            held_out_subjects=len(self.subjects.held_out),
        )
        network = seeded_network(settings, self.subjects.dataset, self.seeds[0], device)
        seconds = scoring(settings, self.subjects, device).seconds_per_subject(network)
        plan = divide_time(self.end - time.monotonic(), runs, seconds, len(self.subjects.held_out))
        self.lines.write("plan", seconds_per_subject=seconds, **plan._asdict())
        return device.type, settings, plan


def divide_time(seconds: float, runs: int, seconds_per_subject: float, held_out: int) -> Plan:
    """Equal parts, of which half goes into scoring at most; none where that is too little for the fewest subjects."""
    arm_seconds = seconds / runs
    cost = _SCORING_MARGIN * seconds_per_subject
    scored = min(held_out, int(_SCORING_SHARE * arm_seconds / cost))
    if scored < FEWEST_SCORED:
        scored = 0
    return Plan(arm_seconds, scored * cost, scored)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
