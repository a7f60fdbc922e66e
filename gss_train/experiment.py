"""Command line: `python -m gss_train.experiment --dataset NAME --seeds 0 1 2` compares with and without GSS."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Doors, which open when a name is asked for: `--help` waits for nothing that the work needs.
from gss_train import report, runs, subjects, training
from gss_train.common import UserError, open_replacing, run_command
from gss_train.config import Config, NetworkName, TrainingOptions, parse_config

Arm = Literal["baseline", "gss", "longer"]

_TITLES: dict[Arm, str] = {"baseline": "baseline", "gss": "GSS", "longer": "longer baseline"}
# Options that the experiment gives its runs itself.
_TAKEN = {
    "--network": "--networks",
    "--seed": "--seeds",
    "--gss": "neither: it trains with and without",
    "--no-gss": "neither: it trains with and without",
    "--init-from": "neither: GSS starts from the baseline of its own seed",
    "--print-config": "--list, which says how each run is started",
}


@dataclass(frozen=True)
class ExperimentOptions:
    """Train networks with and without GSS from several seeds, evaluate them, and write the report that compares them.

    All other flags are those of `python -m gss_train.main`, such as --dataset, --data-root, --preset and --epochs, and
    hold for every run. Started again after a stop, in whatever way, it goes on; what is finished is kept.

    Attributes:
        networks: to train.
        seeds: of weights, crops, augmentation and masks; the subjects are divided by --split, --split-seed, --fold or
            --split-file, alike for all.
        output: folder of the runs and of `report.html`; by default one under `experiments/` named by the data set.
        longer_baseline: also train the baseline on for as many steps as GSS takes, from the same weights: what more
            steps alone bring.
        list: write the settings of each run to the output folder, print the commands that train them, and stop: to
            train them elsewhere, such as on several GPUs. Runs of GSS need their baseline first. Afterwards the same
            command without --list writes the report.
    """

    networks: tuple[NetworkName, ...] = ("rfnet",)
    seeds: tuple[int, ...] = (0, 1, 2)
    output: Path | None = None
    longer_baseline: bool = False
    list: bool = False

    def __post_init__(self) -> None:
        for name, values in (("--networks", self.networks), ("--seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: got {' '.join(map(str, values)) or 'none'}, need one or more, each once")


@dataclass(frozen=True)
class PlannedRun:
    """One training of the experiment.

    Attributes:
        arm: what it trains.
        folder: where it goes.
        config: all of its options; `run.output` is its folder.
    """

    arm: Arm
    folder: Path
    config: Config

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.config.network.network}, {_TITLES[self.arm]}, seed {self.config.run.seed}"


@dataclass(frozen=True)
class Experiment:
    """What is to be done.

    Attributes:
        output: the folder of all runs.
        title: of the report.
        runs: in an order in which each finds what it starts from.
        only_list: whether the runs are merely to be listed.
    """

    output: Path
    title: str
    runs: tuple[PlannedRun, ...]
    only_list: bool


def plan(arguments: list[str] | None = None) -> Experiment:
    """Read the command line, and see whether all runs can be trained: better before the first than after a day.

    Raises:
        SystemExit: a flag is unknown or unreadable; or `--help`.
        UserError: an option cannot be used or is not for a whole experiment, or a folder has a run with other settings.
    """
    # Here, so that where it is missing the command says so, and `--help` does not wait for what the data need.
    import tyro  # noqa: PLC0415

    options, rest = tyro.cli(
        ExperimentOptions, args=arguments, prog="python -m gss_train.experiment", return_unknown_args=True
    )
    for argument in rest:
        instead = _TAKEN.get(argument.partition("=")[0].replace("_", "-"))
        if instead is not None:
            raise UserError(f"{argument}: is not for a whole experiment; use {instead}")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun: an experiment is one process; --list prints the runs, which torchrun can start")
    configs = [parse_config([*rest, "--network", network]) for network in options.networks]
    first = configs[0]
    if first.record.final_evaluation == "none":
        raise UserError("--final-evaluation: got none, need dice or all: the report compares scores")
    output = options.output or Path("experiments") / f"{first.data.dataset}-{first.run.preset}"
    dataset = subjects.resolve_dataset(first)[0].data.dataset
    planned = tuple(
        run
        for network in options.networks
        for seed in options.seeds
        for run in _runs(_Parser(rest, network, seed, output, dataset), longer_baseline=options.longer_baseline)
    )
    for run in planned:
        runs.refuse_other_settings(run.config, run.folder)
    title = f"{', '.join(options.networks)} with and without GSS on {dataset}"
    return Experiment(output, title, planned, options.list)


@dataclass(frozen=True)
class _Parser:
    """Reads the settings of one network and seed: for each arm of its own, as the run in its folder keeps them."""

    arguments: Sequence[str]
    network: str
    seed: int
    output: Path
    dataset: str

    def folder(self, arm: Arm) -> Path:
        return self.output / f"{self.network}-{arm}-seed{self.seed}"

    def read(self, arm: Arm, *more: str, anew: Collection[str] = ()) -> Config:
        own = ("--network", self.network, "--seed", str(self.seed), "--output", str(self.folder(arm)), "--gss", *more)
        return parse_config([*self.arguments, *own], anew={"init_from", *anew}).with_dataset(self.dataset)


def _runs(parser: _Parser, *, longer_baseline: bool) -> Iterator[PlannedRun]:
    """Of one network and seed."""
    gss = parser.read("gss")
    # Where they go on, the others have what follows from this one's options, not from their own.
    shared = ("--epochs", str(gss.training.epochs))
    baseline = parser.read("baseline", *shared, anew=("gss_warmup", "gss_ramp"))
    if baseline.training.baseline_epochs == 0:
        raise UserError("--baseline-epochs: got 0, need 1 or more: GSS is compared with the baseline it starts from")
    weights = parser.folder("baseline") / "baseline.pt"
    arms: dict[Arm, tuple[Config, TrainingOptions]] = {
        "baseline": (baseline, _without_gss(baseline.training)),
        "gss": (gss, dataclasses.replace(gss.training, init_from=weights)),
    }
    if longer_baseline:
        longer = parser.read("longer", *shared, anew=("gss_warmup", "gss_ramp"))
        epochs = gss.training.rounds * gss.training.epochs
        schedule = dataclasses.replace(
            _without_gss(longer.training), init_from=weights, epochs=epochs, fusion_warmup_epochs=0
        )
        arms["longer"] = (longer, schedule)
    for arm, (config, schedule) in arms.items():
        yield PlannedRun(arm, parser.folder(arm), dataclasses.replace(config, training=schedule))


def _without_gss(options: TrainingOptions) -> TrainingOptions:
    return dataclasses.replace(options, gss=False, gss_warmup=0, gss_ramp=0, epochs=options.baseline_epochs)


def carry_out(experiment: Experiment) -> None:
    """Train what is not trained yet, and write the report; or list the runs.

    Raises:
        UserError: a file or the data cannot be used.
        OSError: a file cannot be written.
        Interrupted: a signal came while it trained; the run is saved and can go on.
    """
    if experiment.only_list:
        _list(experiment)
        return
    for number, run in enumerate(experiment.runs, start=1):
        done = runs.run_status(run.folder) == "finished"
        state = "finished already" if done else f"in {run.folder}"
        print(f"\n== Run {number} of {len(experiment.runs)}: {run.title}, {state}", flush=True)
        if not done:
            training.run_training(run.config, training.Drawing(report.save_epoch_figure, report.save_summary))
    path = experiment.output / "report.html"
    report.write_report(path, [run.folder for run in experiment.runs], title=experiment.title)
    print(f"\nReport: {path}", flush=True)


def _list(experiment: Experiment) -> None:
    for run in experiment.runs:
        path = run.folder.with_name(f"{run.folder.name}.json")
        with open_replacing(path) as file:
            file.write((json.dumps(run.config.to_json(), indent=2) + "\n").encode())
        print(f"python -m gss_train.main --config {shlex.quote(str(path))}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 143 if SIGTERM and 130 if
        SIGINT ended it. The same command goes on where it was stopped.
    """
    started = time.monotonic()

    def experiment() -> None:
        carry_out(plan(arguments))
        print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")

    return run_command(experiment, extras="train,demo", interrupted="interrupted; what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
