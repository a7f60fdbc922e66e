"""What the settings default to."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from gss_train.config.options import (
    Config,
    DataOptions,
    DatasetName,
    NetworkName,
    NetworkOptions,
    PhantomOptions,
    RecordOptions,
    RunOptions,
    TrainingOptions,
    ValidationOptions,
)

PickedPreset = Literal["quick", "paper", "lean"]

# Needs no scans. The user names the data set; this one only stands in its place.
_STAND_IN: DatasetName = "brats2020"

# Of the published splits; BraTS2020's stands for all that have none.
_TRAINING_SUBJECTS: dict[DatasetName, int] = {"brats2015": 242, "brats2018": 199}
_TRAINING_SUBJECTS_OF_2020 = 219

_QUICK_WIDTHS: dict[NetworkName, int] = {"rfnet": 8, "mmformer": 4, "robustseg": 4, "uhved": 4}


def preset_config(preset: PickedPreset, network: NetworkName = "rfnet", dataset: DatasetName = "brats2020") -> Config:
    """The settings that a preset stands for.

    Args:
        preset: its name.
        network: that is trained.
        dataset: that the schedule is for. Where scans come from is the user's to say: the result's own `dataset`
            merely stands in for it.
    """
    if preset == "quick":
        return _quick(network)
    paper = _paper(network, dataset)
    return paper if preset == "paper" else _lean(paper)


def _paper(network: NetworkName, dataset: DatasetName) -> Config:
    """The networks' published schedules."""
    crop, training = 80, TrainingOptions(precision="float32")
    if network == "mmformer":
        crop, batch_size = 128, 8
        subjects = _TRAINING_SUBJECTS.get(dataset, _TRAINING_SUBJECTS_OF_2020)
        training = dataclasses.replace(
            training,
            baseline_epochs=1000,
            epochs=1000,
            steps_per_epoch=math.ceil(subjects / batch_size),
            batch_size=batch_size,
            fusion_warmup_epochs=0,
        )
    elif network == "robustseg":
        training = dataclasses.replace(training, batch_size=1, learning_rate=1e-4, fusion_warmup_epochs=0)
    elif network == "uhved":
        crop = 112
        training = dataclasses.replace(training, batch_size=1, learning_rate=1e-3, fusion_warmup_epochs=0)
    return Config(
        data=DataOptions(_STAND_IN, crop_size=(crop,)),
        network=NetworkOptions(network=network),
        training=training,
        run=RunOptions(preset="paper"),
    )


def _lean(paper: Config) -> Config:
    """The least memory at equal results: nothing that changes what is learnt but for rounding."""
    return dataclasses.replace(
        paper,
        network=dataclasses.replace(paper.network, activation_checkpointing=True),
        training=dataclasses.replace(paper.training, precision="auto"),
        run=RunOptions(preset="lean"),
    )


def _quick(network: NetworkName) -> Config:
    """A first look in minutes."""
    return Config(
        data=DataOptions(
            _STAND_IN,
            crop_size=(32, 48, 32) if network == "mmformer" else (32, 40, 32),
            tumour_share=0.5,
            workers=0,
            max_training_subjects=32,
            max_test_subjects=4,
        ),
        phantom=PhantomOptions(phantom_subjects=32, phantom_size=(48, 56, 48), phantom_test_subjects=4),
        network=NetworkOptions(network=network, width=_QUICK_WIDTHS[network]),
        training=TrainingOptions(
            baseline_epochs=11,
            rounds=1,
            epochs=5,
            steps_per_epoch=20,
            batch_size=2,
            learning_rate=4e-3,
            fusion_warmup_epochs=0,
        ),
        validation=ValidationOptions(validate_every=5, validation_subjects=2),
        record=RecordOptions(figure_every=5),
        run=RunOptions(preset="quick"),
    )
