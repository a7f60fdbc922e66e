from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gss_train.common.errors import UserError
from gss_train.config import Config, keep_begun, parse_config, refuse_changes, stated_options

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
        "--resume never --keep-checkpoints 5 --checkpoint-every 2 --gather-every 3 --no-tensorboard --figure-every 0",
        "--final-evaluation none",
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
        *("resume", "keep_checkpoints", "checkpoint_every", "gather_every", "tensorboard", "figure_every"),
        "final_evaluation",
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


def resumed(begun: dict[str, Any], *arguments: str) -> Config:
    """Settings with which a run is gone on with by a command line."""
    line = ["--dataset", "brats2018", *arguments]
    return keep_begun(parse_config(line), begun, stated_options(line), SOURCE)


def test_a_run_keeps_what_nobody_states_whatever_the_defaults_are_now() -> None:
    begun = settings("--network", "robustseg", "--learning-rate", "0.5", "--workers", "7")
    begun["training"]["amsgrad"] = True
    config = resumed(begun, "--network", "robustseg", "--seed", "0")
    assert (config.training.learning_rate, config.training.amsgrad, config.data.workers) == (0.5, True, 7)
    refuse_changes(begun, config.to_json(), SOURCE)


@pytest.mark.parametrize("network", ["rfnet", "robustseg", "uhved"])
def test_a_run_from_before_there_were_protocols_goes_on_as_it_began(network: str) -> None:
    begun = settings("--network", network, "--protocol", "rfnet", "--learning-rate", "0.001")
    begun["run"]["protocol"] = "own"
    later = ("amsgrad", "learning_rate_decay", "decayed_weights", "subset_draw", "dice_denominator", "cross_entropy")
    old = {section: dict(options) for section, options in begun.items() if section != "self_support"}
    for name in later:
        del old["training"][name]
    del old["augmentation"]["augment_scaling_per_axis"], old["run"]["protocol"]
    training = resumed(old, "--network", network).training
    assert (training.amsgrad, training.learning_rate, training.learning_rate_decay) == (True, 0.001, "poly")
    assert (training.subset_draw, training.decayed_weights, training.cross_entropy) == ("subset", "all", "weighted")
    assert training.dice_denominator == ("squares" if network == "robustseg" else "probabilities")
    refuse_changes(old, resumed(old, "--network", network).to_json(), SOURCE)


def test_what_is_stated_is_wanted_and_so_refused() -> None:
    begun = settings("--epochs", "9")
    assert resumed(begun, "--epochs", "8").training.epochs == 8
    assert "--epochs: was 9, now 8" in refusal(begun, resumed(begun, "--epochs", "8").to_json())


@pytest.mark.parametrize("flags", [("--preset", "paper"), ("--network", "uhved"), ("--protocol", "rfnet")])
def test_another_training_is_another_run(flags: tuple[str, ...]) -> None:
    """Its defaults are its own; `--preset paper` is not quietly the quick run that was begun."""
    begun = settings("--network", "robustseg", "--learning-rate", "0.5")
    changed = resumed(begun, *flags)
    assert changed == parse_config(["--dataset", "brats2018", *flags])
    assert "--learning-rate: was 0.5" in refusal(begun, changed.to_json())


def test_where_the_run_goes_and_whether_it_may_go_on_are_never_kept() -> None:
    begun = settings("--output", "before", "--resume", "never")
    config = resumed(begun, "--output", "now")
    assert (config.run.output, config.record.resume) == (Path("now"), "auto")
