from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gss_train.common.errors import UserError
from gss_train.config import Config, parse_config, refuse_changes

SOURCE = Path("runs/mine/config.json")


@cache
def text(*arguments: str) -> str:
    return json.dumps(parse_config(["--preset", "quick", *arguments]).to_json())


def settings(*arguments: str, dataset: str = "brats2018") -> dict[str, Any]:
    """As a run's config.json has them."""
    return json.loads(text("--dataset", dataset, *arguments))


def refusal(old: dict[str, Any], new: dict[str, Any]) -> str:
    with pytest.raises(UserError) as refused:
        refuse_changes(old, new, SOURCE)
    return str(refused.value)


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--workers 3 --cache elsewhere",
        "--device cuda:1 --output elsewhere",
        "--activation-checkpointing --compile --channels-last --deterministic --max-bad-steps 0",
        "--resume never --keep-checkpoints 5 --checkpoint-minutes 2 --gather-every 3 --no-tensorboard --figure-every 0",
        "--final-evaluation none --ignore-resources",
    ],
)
def test_what_does_not_change_what_is_learnt_may_change(flags: str) -> None:
    refuse_changes(settings(), settings(*flags.split()), SOURCE)
    refuse_changes(settings(*flags.split()), settings(), SOURCE)


def test_the_name_of_the_preset_may_change() -> None:
    named = settings()
    named["run"]["preset"] = "lean"
    refuse_changes(settings(), named, SOURCE)


def test_files_may_have_moved() -> None:
    refuse_changes(settings("--data-root", "here"), settings("--data-root", "there"), SOURCE)
    here, there = (settings("--manifest", name, dataset="custom") for name in ("here.csv", "there.csv"))
    refuse_changes(here, there, SOURCE)


def test_a_phantom_is_not_a_patient() -> None:
    message = refusal(settings(), settings("--data-root", "raw"))
    assert '--data-root: was null, now "raw"' in message


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--seed 3", "--seed: was 0, now 3"),
        ("--epochs 6", "--epochs: was 5, now 6"),
        ("--precision bfloat16", '--precision: was "auto", now "bfloat16"'),
        ("--accumulate 2", "--accumulate: was 1, now 2"),
        ("--ema 0.9", "--ema: was null, now 0.9"),
        ("--network uhved", '--network: was "rfnet", now "uhved"'),
        ("--validation-subjects 3", "--validation-subjects: was 2, now 3"),
        ("--no-augment-flip", "--augment-flip: was true, now false"),
        ("--crop-size 32", "--crop-size: was [32, 40, 32], now [32]"),
        ("--spacing 2", "--spacing: was null, now [2.0]"),
        ("--phantom-subjects 40", "--phantom-subjects: was 32, now 40"),
        ("--split-seed 1", "--split-seed: was 0, now 1"),
    ],
)
def test_what_changes_what_is_learnt_is_refused_with_both_values(flags: str, line: str) -> None:
    message = refusal(settings(), settings(*flags.split()))
    assert f"\n  {line}\n" in message


def test_the_message_names_run_file_and_remedy_and_only_what_differs() -> None:
    message = refusal(settings(), settings("--seed", "3", "--rounds", "2", "--workers", "3"))
    title, *changes, remedy = message.splitlines()
    assert [change.split(":")[0].strip() for change in changes] == ["--rounds", "--seed"]
    assert "runs/mine" in title
    assert "config.json" in title
    assert "another --output" in remedy


def test_every_setting_but_those_is_compared() -> None:
    """A new option is refused to change until somebody says that it may."""
    free = {
        *("workers", "cache", "data_root", "manifest", "device", "output", "preset", "protocol"),
        *("activation_checkpointing", "compile", "channels_last", "deterministic", "max_bad_steps"),
        *("resume", "keep_checkpoints", "checkpoint_minutes", "gather_every", "tensorboard", "figure_every"),
        *("final_evaluation", "final_weights", "stage_validation", "ignore_resources"),
    }
    for section, options in settings("--data-root", "raw").items():
        for name in options:
            changed = settings("--data-root", "raw")
            changed[section][name] = "something else"
            if name == "manifest":
                continue  # there is none, and one may not appear
            if name in free:
                refuse_changes(settings("--data-root", "raw"), changed, SOURCE)
            else:
                assert f"--{name.replace('_', '-')}: was " in refusal(settings("--data-root", "raw"), changed)


def test_one_crop_length_stands_for_three() -> None:
    refuse_changes(settings("--crop-size", "32"), settings("--crop-size", "32", "32", "32"), SOURCE)


def test_an_option_that_an_older_run_lacks_had_its_default() -> None:
    paper = parse_config(["--dataset", "brats2018", "--preset", "paper"]).to_json()
    old = json.loads(json.dumps(paper))
    del old["training"]["ema"], old["training"]["deterministic"], old["validation"], old["record"]
    refuse_changes(old, paper, SOURCE)
    paper["training"]["ema"] = 0.9
    assert "--ema: was null, now 0.9" in refusal(old, paper)


def test_an_option_that_is_no_more_is_refused() -> None:
    old = settings()
    old["training"]["momentum"] = 0.5
    assert "--momentum: was 0.5, now unknown" in refusal(old, settings())


@pytest.mark.parametrize("old", [{"training": 3}, {"training": None}, [], None])
def test_a_damaged_file_is_named(old: Any) -> None:
    assert str(SOURCE) in refusal(old, settings())


def begin(folder: Path, begun: dict[str, Any]) -> Path:
    """The folder of a run with these settings."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(begun))
    return folder


def resumed(folder: Path, *arguments: str) -> Config:
    """Settings with which the run in a folder is gone on with by a command line."""
    return parse_config(["--dataset", "brats2018", "--output", str(folder), *arguments])


def refuse(folder: Path, config: Config) -> str:
    """The message with which these settings are refused for the run; empty if they are not."""
    try:
        refuse_changes(json.loads((folder / "config.json").read_text()), config.to_json(), SOURCE)
    except UserError as refused:
        return str(refused)
    return ""


def test_a_run_keeps_what_nobody_states_whatever_the_defaults_are_now(tmp_path: Path) -> None:
    begun = settings("--network", "robustseg", "--learning-rate", "0.5", "--workers", "7")
    begun["training"]["amsgrad"] = True
    config = resumed(begin(tmp_path, begun), "--network", "robustseg", "--seed", "0")
    assert (config.training.learning_rate, config.training.amsgrad, config.data.workers) == (0.5, True, 7)
    assert refuse(tmp_path, config) == ""


def test_a_run_of_another_preset_goes_on_without_its_name_on_a_machine_with_other_defaults(tmp_path: Path) -> None:
    """What is stated has to fit the run, not the defaults: 1500 steps are more than a round of `quick` has."""
    flags = ("--gss-warmup", "500", "--gss-ramp", "1000", "--early-stopping", "10")
    begun = settings("--data-root", "raw", "--preset", "paper", "--batch-size", "8", *flags, "--accumulate", "4")
    config = resumed(begin(tmp_path, begun), "--data-root", "raw", "--device", "cpu", "--accumulate", "4", *flags)
    assert (config.run.preset, config.training.batch_size, config.training.epochs) == ("paper", 8, 300)
    assert refuse(tmp_path, config) == ""


def test_the_run_says_what_it_is_of(tmp_path: Path) -> None:
    begin(tmp_path, settings("--seed", "4"))
    config = parse_config(["--output", str(tmp_path)])
    assert (config.data.dataset, config.run.seed) == ("brats2018", 4)


def test_print_config_shows_what_a_run_goes_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, settings("--learning-rate", "0.5"))
    with pytest.raises(SystemExit):
        resumed(tmp_path, "--print-config")
    out, err = capsys.readouterr()
    assert json.loads(out)["training"]["learning_rate"] == 0.5
    (line,) = [line for line in err.splitlines() if line.startswith("--learning-rate ")]
    assert line.endswith(f"run in {tmp_path}")


@pytest.mark.parametrize("network", ["rfnet", "robustseg", "uhved"])
def test_a_run_from_before_there_were_protocols_goes_on_as_it_began(network: str, tmp_path: Path) -> None:
    begun = settings("--network", network, "--protocol", "rfnet", "--learning-rate", "0.001")
    later = {
        *("amsgrad", "learning_rate_decay", "decayed_weights", "subset_draw", "dice_denominator", "cross_entropy"),
        *("deterministic", "augment_scaling_per_axis", "protocol", "split", "box"),
    }
    old = {
        section: {name: value for name, value in options.items() if name not in later}
        for section, options in begun.items()
        if section != "self_support"
    }
    config = resumed(begin(tmp_path, old), "--network", network)
    training = config.training
    assert (training.amsgrad, training.learning_rate, training.learning_rate_decay) == (True, 0.001, "poly")
    assert (training.subset_draw, training.decayed_weights, training.cross_entropy) == ("subset", "all", "weighted")
    assert training.dice_denominator == ("squares" if network == "robustseg" else "probabilities")
    assert (config.data.split, config.data.box, config.augmentation.augment_scaling) == ("seeded", "whole", 0)
    assert refuse(tmp_path, config) == ""


def test_what_is_stated_is_wanted_and_so_refused(tmp_path: Path) -> None:
    config = resumed(begin(tmp_path, settings("--epochs", "9")), "--epochs", "8")
    assert config.training.epochs == 8
    assert "--epochs: was 9, now 8" in refuse(tmp_path, config)


@pytest.mark.parametrize("flags", [("--preset", "paper"), ("--network", "uhved"), ("--protocol", "rfnet")])
def test_another_training_is_another_run(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Its defaults are its own; `--preset paper` is not quietly the quick run that was begun."""
    changed = resumed(begin(tmp_path, settings("--network", "robustseg", "--learning-rate", "0.5")), *flags)
    assert changed.training == parse_config(["--dataset", "brats2018", *flags]).training
    assert "--learning-rate: was 0.5" in refuse(tmp_path, changed)


def test_where_the_run_goes_and_whether_it_may_go_on_are_never_kept(tmp_path: Path) -> None:
    config = resumed(begin(tmp_path, settings("--output", "before", "--resume", "never")))
    assert (config.run.output, config.record.resume) == (tmp_path, "auto")


def test_an_option_that_is_no_more_is_left_to_be_refused(tmp_path: Path) -> None:
    begun = settings()
    begun["training"]["momentum"] = 0.5
    assert "--momentum: was 0.5, now unknown" in refuse(tmp_path, resumed(begin(tmp_path, begun)))


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[3]")
    with pytest.raises(UserError, match=r"--output: .*config\.json"):
        resumed(tmp_path)
