from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest

from gss_train.common import to_triple
from gss_train.config import (
    DatasetName,
    NetworkName,
    PickedPreset,
    parse_config,
    preset_config,
    with_defaults,
)
from gss_train.config.presets import preset_options
from gss_train.data import published_splits
from gss_train.models import build_network
from gss_train.phantom import Grid

NETWORKS = get_args(NetworkName)


@pytest.mark.parametrize("dataset", [name for name in get_args(DatasetName) if name != "custom"])
def test_an_epoch_of_mmformer_is_a_pass_over_the_published_training_subjects(dataset: DatasetName) -> None:
    (first, *_) = (published_splits(dataset) or published_splits("brats2020")).values()
    for config in (preset_config("paper", "mmformer", dataset), preset_config("lean", "mmformer", dataset)):
        assert config.training.steps_per_epoch == math.ceil(len(first.listed.train) / config.training.batch_size)


def test_ones_own_data_takes_the_schedule_of_2020() -> None:
    shared = ["--preset", "paper", "--network", "mmformer"]
    own = parse_config(["--dataset", "custom", "--manifest", "mine.csv", *shared])
    assert own.training == preset_config("paper", "mmformer", "brats2020").training
    assert parse_config(["--dataset", "brats2018", *shared]).training != own.training


@pytest.mark.parametrize("network", NETWORKS)
def test_paper_computes_as_the_public_code_does_with_nothing_that_was_not_published(network: NetworkName) -> None:
    config = preset_config("paper", network)
    training = config.training
    assert (training.precision, training.deterministic) == ("tf32", False)
    assert (training.accumulate, training.dice) == (1, "batch")
    assert (training.ema, training.clip_gradient, training.gss_warmup, training.gss_ramp) == (None, None, 0, 0)
    assert not config.network.activation_checkpointing
    validation = config.validation
    assert (validation.validate_every, validation.validation_subjects) == (10, 8)
    assert validation.early_stopping is None


@pytest.mark.parametrize("network", NETWORKS)
def test_lean_is_paper_but_for_what_saves_memory(network: NetworkName) -> None:
    paper, lean = preset_config("paper", network), preset_config("lean", network)
    assert lean.network.activation_checkpointing
    assert lean.training.precision == "auto"
    assert lean.run.preset == "lean"
    same = dataclasses.replace(
        lean,
        network=dataclasses.replace(lean.network, activation_checkpointing=False),
        training=dataclasses.replace(lean.training, precision="tf32"),
        run=dataclasses.replace(lean.run, preset="paper"),
    )
    assert same == paper


@pytest.mark.parametrize("preset", ["quick", "paper", "lean"])
def test_a_run_takes_the_published_split_where_it_can_and_one_of_before_there_was_the_option_does_not(
    preset: PickedPreset,
) -> None:
    assert preset_config(preset).data.split == "auto"
    before = preset_config(preset).to_json()
    del before["data"]["split"]
    assert with_defaults(before)["data"]["split"] == "seeded"


def test_quick_looks_seldom_and_briefly() -> None:
    config = preset_config("quick")
    assert config.training.precision == "auto"
    assert (config.validation.validate_every, config.validation.validation_subjects) == (5, 2)
    assert config.record.figure_every == 5


@pytest.mark.parametrize("where", ["data_root", "manifest"])
def test_quick_brings_scans_of_ones_own_to_the_voxels_of_its_phantom(where: str) -> None:
    assert preset_options({"preset": "quick", where: "somewhere"})["spacing"] == (4.0,)
    assert preset_options({"preset": "quick"})["spacing"] is None
    assert preset_options({"preset": "paper", where: "somewhere"})["spacing"] is None
    size = preset_config("quick").phantom.phantom_size
    assert Grid.for_brain(size).spacing == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("network", NETWORKS)
def test_quick_builds_every_network_for_scans_of_ones_own(network: NetworkName) -> None:
    options = preset_options({"preset": "quick", "network": network, "data_root": "somewhere"})
    crop = to_triple(options["crop_size"])
    build_network(network, 4, crop_size=crop, width=options["width"])
    assert max(crop) * options["spacing"][0] <= 128
