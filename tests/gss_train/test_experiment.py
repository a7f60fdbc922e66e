from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from gss_train import report, training
from gss_train.common import Interrupted, UserError
from gss_train.config import Config, parse_config
from gss_train.experiment import carry_out, main, plan
from tests.gss_train.training.tiny import one_processor, small_figures, write_scans

QUICK = ["--dataset", "brats2018", "--preset", "quick", "--device", "cpu"]
TINY = [
    *("--preset", "quick", "--dataset", "brats2020", "--device", "cpu", "--spacing", "None"),
    *("--crop-size", "16", "--width", "4", "--batch-size", "2", "--validate-every", "0"),
    *("--baseline-epochs", "1", "--epochs", "1", "--steps-per-epoch", "2"),
    *("--no-tensorboard", "--figure-every", "0", "--final-evaluation", "dice"),
]


def finish(config: Config) -> None:
    """Leave what tells a finished run, without the work."""
    folder = config.run.output
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "subsets.md").write_text("")


class Trainer:
    """Stands for the training; a signal may come in one of the runs."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        self.interrupted_at = interrupted_at
        self.trained: list[str] = []

    def __call__(self, config: Config, _drawing: object) -> None:
        assert config.run.output is not None
        if len(self.trained) == self.interrupted_at:
            raise Interrupted(signal.SIGTERM)
        self.trained.append(config.run.output.name)
        finish(config)


def train_with(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(training), "run_training", trainer)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs of each report."""
    reports: list[list[str]] = []

    def write_report(path: Path, runs: list[Path], *, title: str) -> None:
        assert title
        assert path.name == "report.html"
        reports.append([folder.name for folder in runs])

    monkeypatch.setitem(vars(report), "write_report", write_report)
    return reports


def test_every_network_is_trained_with_and_without_gss_from_every_seed(tmp_path: Path) -> None:
    networks = ["rfnet", "uhved"]
    experiment = plan([*QUICK, "--networks", *networks, "--seeds", "3", "5", "--output", str(tmp_path)])
    assert [planned.folder.name for planned in experiment.runs] == [
        f"{network}-{arm}-seed{seed}" for network in networks for seed in (3, 5) for arm in ("baseline", "gss")
    ]
    expectations = {network: parse_config([*QUICK, "--network", network]) for network in networks}
    for planned in experiment.runs:
        network, arm, seed = planned.folder.name.split("-")
        expected = expectations[network]
        config = planned.config
        assert (config.network, config.data) == (expected.network, expected.data)
        assert config.run.seed == int(seed.removeprefix("seed"))
        assert config.training.gss == (arm == "gss")
        if arm == "baseline":
            # As long as the stage that GSS starts from.
            assert config.training.epochs == expected.training.baseline_epochs
            assert config.training.init_from is None
        else:
            assert config.training.epochs == expected.training.epochs
            assert config.training.init_from == tmp_path / f"{network}-baseline-{seed}" / "baseline.pt"


def test_the_longer_baseline_takes_the_steps_of_gss_from_the_same_weights(tmp_path: Path) -> None:
    flags = ["--longer-baseline", "--seeds", "0", "--rounds", "3", "--output", str(tmp_path)]
    _, gss, longer = (planned.config.training for planned in plan([*QUICK, *flags]).runs)
    assert longer.epochs * longer.steps_per_epoch == gss.rounds * gss.epochs * gss.steps_per_epoch
    assert longer.init_from == gss.init_from
    assert not longer.gss


@pytest.mark.parametrize(
    "flags", [["--network", "uhved"], ["--seed", "1"], ["--no-gss"], ["--init-from=x.pt"]], ids=str
)
def test_flags_that_are_not_for_all_runs_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flags[0]}: is not for a whole experiment; use ")


@pytest.mark.parametrize("flags", [["--seeds", "1", "1"], ["--networks", "vnet"], ["--rounds", "two"]], ids=str)
def test_unreadable_flags_are_said(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*QUICK, *flags])
    assert flags[0].removeprefix("--") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--epochs 0", "--epochs: got 0, need 1 or more"),
        ("--seeds -1", "--seed: got -1, need 0 or more"),
        ("--baseline-epochs 0", "--baseline-epochs: got 0, need 1 or more: GSS is compared with the baseline"),
        # The rounds of GSS have epochs enough, the baseline by itself has not.
        ("--early-stopping 1 --baseline-epochs 2 --epochs 11", "--early-stopping: got 1 validations"),
        ("--final-evaluation none", "--final-evaluation: got none, need dice or all"),
    ],
)
def test_options_that_a_run_cannot_have_are_said(flags: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *flags.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.parametrize("finished", range(4))
def test_an_experiment_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, finished: int, monkeypatch: pytest.MonkeyPatch, reported: list[list[str]]
) -> None:
    experiment = plan([*QUICK, "--seeds", "0", "1", "--output", str(tmp_path)])
    names = [planned.folder.name for planned in experiment.runs]
    stopped, later = Trainer(finished), Trainer()
    train_with(stopped, monkeypatch)
    with pytest.raises(Interrupted):
        carry_out(experiment)
    assert not reported
    train_with(later, monkeypatch)
    carry_out(experiment)
    assert [*stopped.trained, *later.trained] == names
    assert reported == [names]


def test_an_experiment_goes_on_as_it_began_whatever_the_defaults_are(tmp_path: Path) -> None:
    """Each arm keeps what its folder says, where that does not follow from the other arms."""
    flags = ["--dataset", "brats2018", "--data-root", "raw", "--device", "cpu", "--output", str(tmp_path)]
    flags += ["--longer-baseline", "--epochs", "40", "--gss-warmup", "700", "--networks", "rfnet", "robustseg"]
    begun = plan([*flags, "--preset", "paper", "--learning-rate", "0.5"])
    for run in begun.runs:
        finish(run.config)
    again = plan(flags)
    assert [run.folder for run in again.runs] == [run.folder for run in begun.runs]
    for old, new in zip(begun.runs, again.runs, strict=True):
        assert new.config == old.config
        assert new.config.training.learning_rate == 0.5


def test_other_settings_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reported: list[list[str]]
) -> None:
    flags = [*QUICK, "--output", str(tmp_path)]
    last = plan(flags).runs[-1]
    finish(last.config)
    trainer = Trainer()
    train_with(trainer, monkeypatch)
    assert main([*flags, "--batch-size", "1"]) == 2
    assert f"the run in {last.folder} has other settings" in capsys.readouterr().err
    assert not trainer.trained
    assert not reported


def test_listed_runs_are_started_by_the_commands_that_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_with(Trainer(0), monkeypatch)
    networks = ("rfnet", "mmformer")
    flags = [*QUICK, "--networks", *networks, "--seeds", "0", "--longer-baseline", "--output", str(tmp_path)]
    experiment = plan([*flags, "--list"])
    carry_out(experiment)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * len(networks)
    for line, planned in zip(lines, experiment.runs, strict=True):
        arguments = line.removeprefix("python -m gss_train.main ").split()
        assert parse_config(arguments) == planned.config


def test_torchrun_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(UserError, match="--list"):
        plan(QUICK)


def test_one_command_trains_evaluates_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "experiment"
    folders = ["--data-root", str(write_scans(tmp_path / "scans", 3)), "--cache", str(tmp_path / "cache")]
    arguments = [*TINY, *folders, "--seeds", "0", "--output", str(output)]
    with one_processor(), small_figures():
        assert main(arguments) == 0
    page = (output / "report.html").read_text(encoding="utf-8")
    for name in ("rfnet-baseline-seed0", "rfnet-gss-seed0"):
        assert (output / name / "evaluation" / "scores.json").exists()
        assert name in page
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("finished already") == 2
    assert (output / "report.html").read_text(encoding="utf-8") == page
