from __future__ import annotations

import dataclasses
import itertools
import json
import re
from typing import get_args

import pytest
import torch

from gss_train.common import check_size
from gss_train.config import DatasetName, NetworkName, PickedPreset, parse_config, preset_config
from gss_train.config.options import SECTIONS, AugmentationOptions
from gss_train.data import DATASETS, AugmentationSettings
from gss_train.models.registry import NETWORKS
from tests.gss_train.config.refusals import refusal


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_told_of_in_its_class(section: str) -> None:
    """`--help` looks nowhere else."""
    kind = SECTIONS[section]
    told = set(re.findall(r"^ {8}(\w+): \S", kind.__doc__ or "", re.MULTILINE))
    assert told == {option.name for option in dataclasses.fields(kind)}


def test_quick_is_the_automatic_preset_without_data() -> None:
    config = parse_config(["--dataset", "brats2015"])
    assert config.run.preset == "quick"
    assert config.training.gss


def test_paper_is_the_automatic_preset_with_data_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--dataset", "brats2018", "--data-root", "raw"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parse_config(arguments).run.preset == "quick"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parse_config(arguments).run.preset == "paper"
    assert parse_config([*arguments, "--device", "cpu"]).run.preset == "quick"
    assert parse_config(["--dataset", "brats2018"]).run.preset == "quick"
    assert parse_config(["--dataset", "custom", "--manifest", "mine.csv"]).run.preset == "paper"


def test_every_network_can_take_the_crops_of_both_presets() -> None:
    presets: tuple[PickedPreset, ...] = ("quick", "paper")
    networks: tuple[NetworkName, ...] = get_args(NetworkName)
    for network, preset in itertools.product(networks, presets):
        kind, crop = NETWORKS[network], preset_config(preset, network).data.crop
        check_size("crop_size", crop, stride=kind.stride, least=kind.least)


def test_flags_override_the_preset() -> None:
    arguments = (
        "--dataset brats2015 --no-gss --epochs 3 --steps-per-epoch 2 --crop-size 32 40 48 --batch-size 1 --seed 7"
    )
    config = parse_config(arguments.split())
    assert not config.training.gss
    assert (config.training.epochs, config.training.steps_per_epoch, config.training.batch_size) == (3, 2, 1)
    assert config.data.crop == (32, 40, 48)
    assert config.run.seed == 7
    assert parse_config(["--dataset", "brats2015", "--crop-size", "32"]).data.crop == (32, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--dataset", "brats2012"], "--dataset"),
        ([], "--dataset"),
        (["--dataset", "brats2015", "--epochs", "0"], "--epochs"),
        (["--dataset", "brats2015", "--learning-rate", "-1"], "--learning-rate"),
        (["--dataset", "brats2015", "--crop-size", "32", "32"], "--crop-size"),
        (["--dataset", "brats2015", "--tumour-share", "2"], "--tumour-share"),
        (["--dataset", "brats2015", "--preset", "best"], "--preset"),
        (["--dataset", "brats2015", "--data-root"], "--data-root"),
        (["--dataset", "brats2015", "--preset", "paper", "--no-gss", "--epochs", "20"], "--fusion-warmup-epochs"),
        (["--dataset", "brats2015", "--phantom-subjects", "5"], "--phantom-subjects"),
        (["--dataset", "brats2015", "--max-test-subjects", "0"], "--max-test-subjects"),
        (["--dataset", "brats2015", "--weight-decay", "nan"], "--weight-decay"),
        (["--dataset", "brats2015", "--no-such-flag"], "--no-such-flag"),
        (["--dataset", "brats2015", "--leader-threshold", "1.5"], "--leader-threshold: got 1.5"),
        (["--dataset", "brats2015", "--temperature", "0"], "--temperature: got 0"),
        (["--dataset", "brats2015", "--gss-weight", "-1"], "--gss-weight: got -1"),
        (["--dataset", "auto"], "--data-root: is missing"),
        (["--dataset", "brats2019"], "--data-root: is missing"),
        (["--dataset", "brats2021"], "brats2015, brats2018, brats2020 only"),
        (["--dataset", "brats2023", "--device", "cpu"], "--data-root: is missing"),
        (["--dataset", "custom"], "--manifest: is missing"),
        (["--dataset", "custom", "--manifest", "m.csv", "--data-root", "raw"], "--data-root: cannot go with"),
        (["--dataset", "brats2020", "--manifest", "m.csv"], "--manifest: needs --dataset custom"),
        (["--dataset", "auto", "--data-root", "raw", "--categories", "c.json"], "--categories: needs --dataset custom"),
        (["--dataset", "brats2020", "--fold", "0"], "--fold: needs --folds"),
        (["--dataset", "brats2020", "--folds", "5"], "--folds: needs --fold"),
        (["--dataset", "brats2020", "--fold", "5", "--folds", "5"], "--fold: got 5, need a number from 0 to 4"),
        (["--dataset", "brats2020", "--fold", "0", "--folds", "1"], "--folds: got 1"),
        (["--dataset", "brats2020", "--fold", "0", "--folds", "5", "--split-file", "s"], "--split-file: cannot go"),
        (["--dataset", "brats2020", "--split-seed", "3", "--split-file", "s"], "--split-seed: cannot go"),
    ],
)
def test_bad_settings_stop_and_name_the_flag(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(arguments, capsys)


def test_the_tree_is_plain_json() -> None:
    config = parse_config(["--dataset", "brats2015", "--data-root", "raw"])
    values = json.loads(json.dumps(config.to_json()))
    assert values["data"]["data_root"] == "raw"
    assert (values["data"]["crop_size"], values["data"]["spacing"]) == ([24], [4.0])


def test_every_edition_can_be_picked() -> None:
    assert get_args(DatasetName) == ("auto", *DATASETS, "custom")
    for name in ("auto", *DATASETS):
        assert parse_config(["--dataset", name, "--data-root", "raw"]).data.dataset == name


def test_a_phantom_stands_in_only_where_there_are_no_scans() -> None:
    assert parse_config(["--dataset", "brats2015"]).data.uses_phantom
    assert not parse_config(["--dataset", "brats2015", "--data-root", "raw"]).data.uses_phantom
    assert not parse_config(["--dataset", "custom", "--manifest", "mine.csv"]).data.uses_phantom


def test_a_recognised_data_set_takes_the_place_of_auto() -> None:
    config = parse_config(["--dataset", "auto", "--data-root", "raw"])
    assert config.with_dataset("brats2021").to_json()["data"]["dataset"] == "brats2021"
    assert config.with_dataset("brats2021").with_dataset("auto") == config


def test_augmentation_is_published_unless_asked() -> None:
    assert parse_config(["--dataset", "brats2018"]).augmentation.settings() == AugmentationSettings()
    arguments = ["--augment-elastic", "4", "--augment-interpolation", "linear", "--no-augment-flip"]
    settings = parse_config(["--dataset", "brats2018", *arguments]).augmentation.settings()
    assert settings == AugmentationSettings(elastic=4.0, interpolation="linear", flip=False)


@pytest.mark.parametrize("flag", ["--augment-rotation-degrees", "--augment-scaling", "--augment-shift"])
def test_faults_of_the_augmentation_name_their_flag(flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        AugmentationOptions(**{flag.removeprefix("--").replace("-", "_"): -1})
