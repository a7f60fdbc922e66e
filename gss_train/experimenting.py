"""The work of `python -m gss_train.experiment`: train each network with and without GSS, for each seed, and compare."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gss_train.common import UserError, open_replacing
from gss_train.config import Config, NetworkName, TrainingOptions, parse_config, refuse_changes
from gss_train.report import save_epoch_figure, save_summary, write_report
from gss_train.runs import is_finished, old_config
from gss_train.subjects import resolve_dataset
from gss_train.training import Drawing, run_training

Arm = Literal["baseline", "gss", "longer"]

_PROGRAM = "python -m gss_train.experiment"
_TITLES: dict[Arm, str] = {"baseline": "baseline", "gss": "GSS", "longer": "longer baseline"}
# Settings that the experiment gives its runs itself.
_TAKEN = {
    "--network": "--networks",
    "--seed": "--seeds",
    "--gss": "neither: it trains with and without",
    "--no-gss": "neither: it trains with and without",
    "--init-from": "neither: GSS starts from the baseline of its own seed",
    "--print-config": "--list, which says how each run is started",
}


@dataclass(frozen=True)
class ExperimentArguments:
    """Train networks with and without GSS from several seeds, evaluate them, and write the report that compares them.

    All other flags are those of `python -m gss_train.main`, such as --dataset, --data-root, --preset and --epochs, and
    hold for every run. Started again after a stop, in whatever way, it goes on; what is finished is kept.

    Attributes:
        networks: to train.
        seeds: of weights, crops, augmentation and masks; the subjects are divided by --split-seed, --fold or
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
        config: all of its settings; `run.output` is its folder.
    """

    arm: Arm
    config: Config

    @property
    def folder(self) -> Path:
        """Where it goes."""
        assert self.config.run.output is not None
        return self.config.run.output

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.config.network.network}, {_TITLES[self.arm]}, seed {self.config.run.seed}"


@dataclass(frozen=True)
class Experiment:
    """What is to be done.

    Attributes:
        output: the folder of all runs.
        runs: in an order in which each finds what it starts from.
        only_list: whether the runs are merely to be listed.
    """

    output: Path
    runs: tuple[PlannedRun, ...]
    only_list: bool = False


def parse_arguments(arguments: Sequence[str] | None = None) -> Experiment:
    """Read the command line.

    Raises:
        SystemExit: a flag that is unknown, unreadable, out of range or contradicts another; or `--help`.
        UserError: a flag that is not for the whole experiment.
    """
    import tyro  # noqa: PLC0415

    options, rest = tyro.cli(ExperimentArguments, args=arguments, prog=_PROGRAM, return_unknown_args=True)
    for argument in rest:
        instead = _TAKEN.get(argument.partition("=")[0].replace("_", "-"))
        if instead is not None:
            raise UserError(f"{argument}: is not for a whole experiment; use {instead}")
    output = options.output or _default_output(parse_config(rest))
    runs = [
        run
        for network in options.networks
        for seed in options.seeds
        for run in _plan(rest, network, seed, output, options.longer_baseline)
    ]
    return Experiment(output, tuple(runs), options.list)


def _default_output(config: Config) -> Path:
    return Path("experiments") / f"{config.data.dataset}-{config.run.preset}"


def _plan(
    arguments: Sequence[str], network: NetworkName, seed: int, output: Path, longer_baseline: bool
) -> Iterator[PlannedRun]:
    """The runs of one network and seed."""
    config = parse_config([*arguments, "--network", network, "--seed", str(seed)])
    options = config.training
    if options.baseline_epochs == 0:
        raise UserError("--baseline-epochs: got 0, need 1 or more: GSS is compared with the baseline it starts from")
    without_gss = dataclasses.replace(options, gss=False, gss_warmup=0, gss_ramp=0, epochs=options.baseline_epochs)
    weights = output / f"{network}-baseline-seed{seed}" / "baseline.pt"
    arms: dict[Arm, TrainingOptions] = {
        "baseline": without_gss,
        "gss": dataclasses.replace(options, init_from=weights),
    }
    if longer_baseline:
        arms["longer"] = dataclasses.replace(
            without_gss, init_from=weights, epochs=options.rounds * options.epochs, fusion_warmup_epochs=0
        )
    for arm, training in arms.items():
        folder = output / f"{network}-{arm}-seed{seed}"
        yield PlannedRun(
            arm,
            dataclasses.replace(config, training=training, run=dataclasses.replace(config.run, output=folder)),
        )


def run(experiment: Experiment) -> None:
    """Train what is not trained yet, and write the report.

    Raises:
        UserError: a setting, a file or the data cannot be used, or a folder has a run with other settings.
        OSError: a file cannot be written.
        Interrupted: a signal came while it trained; the run is saved and can go on.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun: an experiment is one process; --list prints the runs, which torchrun can start")
    runs = _with_dataset(experiment.runs)
    # Of all before the first: better now than after a day of training.
    for planned in runs:
        _refuse_other_settings(planned)
    if experiment.only_list:
        _list(runs)
        return
    for number, planned in enumerate(runs, start=1):
        done = is_finished(planned.folder)
        state = "finished already" if done else f"in {planned.folder}"
        print(f"\n== Run {number} of {len(runs)}: {planned.title}, {state}", flush=True)
        if not done:
            run_training(planned.config, Drawing(save_epoch_figure, save_summary))
    path = experiment.output / "report.html"
    write_report(path, [planned.folder for planned in runs], title=_title(runs))
    print(f"\nReport: {path}", flush=True)


def _with_dataset(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The same with the edition in place of `auto`."""
    config, _ = resolve_dataset(runs[0].config)
    return [PlannedRun(planned.arm, planned.config.with_dataset(config.data.dataset)) for planned in runs]


def _refuse_other_settings(planned: PlannedRun) -> None:
    before = old_config(planned.folder)
    if before is not None:
        refuse_changes(before, planned.config.to_json(), planned.folder / "config.json")


def _list(runs: Sequence[PlannedRun]) -> None:
    for planned in runs:
        path = planned.folder.with_name(f"{planned.folder.name}.json")
        with open_replacing(path) as file:
            file.write((json.dumps(planned.config.to_json(), indent=2) + "\n").encode())
        print(f"python -m gss_train.main --config {shlex.quote(str(path))}")


def _title(runs: Sequence[PlannedRun]) -> str:
    networks = ", ".join(dict.fromkeys(planned.config.network.network for planned in runs))
    return f"{networks} with and without GSS on {runs[0].config.data.dataset}"
