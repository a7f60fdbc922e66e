"""Settings that cannot be, or not together, are refused before any work, in one message that names their flag."""

from __future__ import annotations

import re

import pytest

from gss_train.config import Config, DataOptions, RecordOptions, TrainingOptions, ValidationOptions, parse_config
from tests.gss_train.config.refusals import refusal

QUICK = ["--dataset", "brats2015", "--preset", "quick"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--accumulate 0", "--accumulate: got 0, need 1 or more"),
        ("--accumulate 3 --batch-size 4", "--accumulate: got 3, need a divisor of --batch-size 4"),
        ("--accumulate 4", "--accumulate: got 4, need a divisor of --batch-size 2"),
        ("--ema 0", "--ema: got 0.0, need a decay above 0 and below 1, such as 0.999"),
        ("--ema 1", "--ema: got 1.0, need a decay above 0 and below 1, such as 0.999"),
        ("--ema nan", "--ema: got nan, need a decay above 0 and below 1, such as 0.999"),
        ("--clip-gradient 0", "--clip-gradient: got 0.0, need a finite number above 0"),
        ("--clip-gradient inf", "--clip-gradient: got inf, need a finite number above 0"),
        ("--max-bad-steps -1", "--max-bad-steps: got -1, need 0 or more"),
        ("--gss-warmup -1", "--gss-warmup: got -1, need 0 or more"),
        ("--no-gss --gss-warmup 1", "--gss-warmup: cannot go with --no-gss, which has no GSS loss"),
        ("--no-gss --gss-ramp 1", "--gss-ramp: cannot go with --no-gss, which has no GSS loss"),
        ("--validate-every -1", "--validate-every: got -1, need 0 or more"),
        ("--validation-subjects 0", "--validation-subjects: got 0, need 1 or more"),
        ("--early-stopping 0", "--early-stopping: got 0, need 1 or more"),
        (
            "--early-stopping 1 --validate-every 0",
            "--early-stopping: cannot go with --validate-every 0: it goes by validations",
        ),
        ("--keep-checkpoints 0", "--keep-checkpoints: got 0, need 1 or more"),
        ("--checkpoint-minutes -1", "--checkpoint-minutes: got -1.0, need 0 or more"),
        ("--gather-every 0", "--gather-every: got 0, need 1 or more"),
        ("--figure-every -1", "--figure-every: got -1, need 0 or more"),
        (
            "--final-weights all --final-evaluation none",
            "--final-weights: cannot go with --final-evaluation none, which scores nothing",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal([*QUICK, *arguments.split()], capsys) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--dataset brats2018 --data-root raw --split published",
            "got published, but --dataset brats2018 has published-1, published-2, published-3",
        ),
        (
            "--dataset brats2020 --data-root raw --split published-1",
            "got published-1, but --dataset brats2020 has publi",
        ),
        (
            "--dataset brats2019 --data-root raw --split published",
            "got published, but --dataset brats2019 has no publi",
        ),
        (
            "--dataset custom --manifest mine.csv --split published",
            "got published, but --dataset custom has no publish",
        ),
        ("--dataset brats2020 --split published", "published needs --data-root, a phantom is on no list"),
        (
            "--dataset brats2020 --data-root raw --split published --fold 0 --folds 3",
            "published cannot go with --fold, which divides the subjects too; leave out one",
        ),
        (
            "--dataset auto --data-root raw --split published --split-file lists",
            "published cannot go with --split-file",
        ),
        (
            "--dataset auto --data-root raw --split published-2 --split-seed 3",
            "published-2 cannot go with --split-seed",
        ),
    ],
)
def test_a_published_split_is_of_one_data_set_and_divides_it_alone(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(arguments.split(), capsys).startswith(f"--split: {message}")


@pytest.mark.parametrize("flags", ["--gss-warmup 100", "--gss-ramp 100", "--gss-warmup 60 --gss-ramp 40"])
def test_a_round_has_a_step_with_the_full_gss_loss(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*QUICK, "--epochs", "5", "--steps-per-epoch", "20"]
    message = refusal([*arguments, *flags.split()], capsys)
    assert message.startswith(f"{flags.split()[-2]}: got")
    assert "a round of 100" in message
    assert parse_config([*arguments, "--gss-warmup", "59", "--gss-ramp", "40"]).training.gss_ramp == 40


def test_early_stopping_that_no_stage_is_long_enough_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    # The baseline has 11 epochs, a round 5. Two validations are 5 epochs apart, three 10.
    assert parse_config([*QUICK, "--early-stopping", "1"]).validation.early_stopping == 1
    for flags in ("--early-stopping 2", "--early-stopping 1 --init-from mine.pt", "--early-stopping 1 --no-gss"):
        message = refusal([*QUICK, *flags.split()], capsys)
        assert re.match(r"--early-stopping: got \d validations, one every 5 epochs", message)


@pytest.mark.parametrize("precision", ["auto", "float32", "tf32", "bfloat16", "float16"])
def test_every_precision_can_be_asked_for_on_a_cpu(precision: str) -> None:
    arguments = [*QUICK, "--precision", precision, "--device", "cpu"]
    assert parse_config(arguments).training.precision == precision


def test_all_options_of_a_step_and_its_records_can_be_given_together() -> None:
    flags = (
        "--batch-size 4 --accumulate 2 --dice per-sample --precision bfloat16 --channels-last --compile --ema 0.99 "
        "--clip-gradient 1 --gss-warmup 5 --gss-ramp 10 --max-bad-steps 0 --validate-every 1 --validation-subjects 3 "
        "--validation-subsets all --early-stopping 2 --resume never --keep-checkpoints 1 --checkpoint-minutes 2 "
        "--gather-every 7 --no-tensorboard --figure-every 0 --final-evaluation dice"
    )
    config = parse_config([*QUICK, *flags.split()])
    training = config.training
    assert (training.accumulate, training.dice, training.precision) == (2, "per-sample", "bfloat16")
    assert training.channels_last
    assert training.compile
    assert (training.ema, training.clip_gradient, training.max_bad_steps) == (0.99, 1.0, 0)
    assert (training.gss_warmup, training.gss_ramp) == (5, 10)
    assert config.validation == ValidationOptions(1, 3, "all", early_stopping=2)
    assert config.record == RecordOptions("never", 1, 2, 7, tensorboard=False, figure_every=0, final_evaluation="dice")


def test_the_tree_checks_itself_without_a_command_line() -> None:
    with pytest.raises(ValueError, match="--accumulate: got 2"):
        TrainingOptions(batch_size=1, accumulate=2)
    with pytest.raises(ValueError, match="--early-stopping: got 30"):
        Config(DataOptions("brats2020"), validation=ValidationOptions(early_stopping=30))
