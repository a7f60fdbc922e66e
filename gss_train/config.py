"""Every setting of a training run: one dataclass tree, from which the command line is generated."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import torch
import tyro

from gss_train.data.augmentation import AugmentationSettings
from gss_train.phantom import PHANTOM_DATASETS

DatasetName = Literal["auto", "brats2015", "brats2018", "brats2019", "brats2020", "brats2021", "brats2023", "custom"]
NetworkName = Literal["rfnet", "mmformer", "robustseg", "uhved"]
PresetName = Literal["auto", "quick", "paper"]
PrecisionName = Literal["float32", "bfloat16"]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _at_least(flag: str, value: float, least: float) -> None:
    if not value >= least or math.isinf(value):
        raise ValueError(f"{flag}: got {value}, need {least} or more")


@dataclass(frozen=True)
class DataOptions:
    """Where the scans come from and how they are fed.

    Attributes:
        dataset: the BraTS edition; `auto` recognises the one below `--data-root`, `custom` is a data set of your own,
            listed by `--manifest`.
        data_root: folder of the raw data set; without it a phantom of BraTS2015, 2018 or 2020 is generated.
        manifest: your own data, a CSV or JSON with `subject, flair, t1ce, t1, t2, seg` (see the README).
        categories: what the labels of your own data mean; by default `<manifest's stem>.dataset.json` beside it.
        cache: folder for phantoms and prepared volumes, reused by later runs.
        crop_size: voxels of a training crop, one number or three.
        tumour_share: share of crops placed on tumour; 0 as published (uniform crops).
        workers: loader processes; 0 loads in the training process.
        split_seed: of the division into training, validation and test subjects; apart from `--seed`, so that runs of
            different seeds, and runs that start from each other's checkpoints, keep the same test subjects.
        fold: which run of a cross-validation this is, from 0 to `--folds` - 1; every subject is tested in one of them.
        folds: runs of the cross-validation.
        split_file: a published split: a folder with train.txt, val.txt and test.txt; one train*.txt of several, with
            the others beside it; or a CSV of subjects and Training, Validation or Inference.
        skip_bad: leave out subjects whose scans have errors, and train and test on the others; `left_out.json` in the
            run folder says which. Without it any error stops the run before its first step.
        max_training_subjects: use no more than so many; None for all.
        max_test_subjects: score no more than so many; None for all.
    """

    dataset: DatasetName
    data_root: Path | None = None
    manifest: Path | None = None
    categories: Path | None = None
    cache: Path = Path("runs/cache")
    crop_size: tuple[int, ...] = (80,)
    tumour_share: float = 0.0
    workers: int = min(4, os.cpu_count() or 1)
    split_seed: int = 0
    fold: int | None = None
    folds: int | None = None
    split_file: Path | None = None
    skip_bad: bool = False
    max_training_subjects: int | None = None
    max_test_subjects: int | None = None

    def __post_init__(self) -> None:
        if len(self.crop_size) not in {1, 3} or min(self.crop_size, default=0) < 1:
            raise ValueError(f"--crop-size: got {self.crop_size}, need one positive number or three")
        if not 0 <= self.tumour_share <= 1:
            raise ValueError(f"--tumour-share: got {self.tumour_share}, need a number from 0 to 1")
        _at_least("--workers", self.workers, 0)
        _at_least("--split-seed", self.split_seed, 0)
        for name in ("max_training_subjects", "max_test_subjects"):
            if getattr(self, name) is not None:
                _at_least(_flag(name), getattr(self, name), 1)
        self._check_source()
        self._check_split()

    def _check_source(self) -> None:
        if self.dataset == "custom":
            if self.manifest is None:
                raise ValueError("--manifest: is missing, --dataset custom needs it")
            if self.data_root is not None:
                raise ValueError("--data-root: cannot go with --dataset custom, whose --manifest says where files are")
            return
        # Presets leave the data set open.
        if self.dataset in get_args(DatasetName):
            for name in ("manifest", "categories"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{_flag(name)}: needs --dataset custom, got --dataset {self.dataset}")
            if self.data_root is None and self.dataset == "auto":
                raise ValueError("--data-root: is missing, --dataset auto needs it to recognise the BraTS edition")
            if self.data_root is None and self.dataset not in PHANTOM_DATASETS:
                raise ValueError(
                    f"--data-root: is missing, --dataset {self.dataset} needs it: phantoms, which stand in for data, "
                    f"exist for {', '.join(PHANTOM_DATASETS)} only"
                )

    def _check_split(self) -> None:
        if (self.fold is None) != (self.folds is None):
            given, missing = ("--folds", "--fold") if self.fold is None else ("--fold", "--folds")
            raise ValueError(f"{given}: needs {missing}")
        if self.fold is not None and self.folds is not None:
            _at_least("--folds", self.folds, 2)
            if not 0 <= self.fold < self.folds:
                raise ValueError(f"--fold: got {self.fold}, need a number from 0 to {self.folds - 1}")
        if self.split_file is not None and self.fold is not None:
            raise ValueError("--split-file: cannot go with --fold, each of them divides the subjects")
        if self.split_file is not None and self.split_seed != 0:
            raise ValueError("--split-seed: cannot go with --split-file, which leaves nothing to draw")

    @property
    def uses_phantom(self) -> bool:
        """Whether there are no scans, and a phantom stands in for them."""
        return self.data_root is None and self.manifest is None

    @property
    def crop(self) -> tuple[int, int, int]:
        """Voxels of a crop along each axis."""
        first, *rest = self.crop_size
        return (first, rest[0], rest[1]) if rest else (first, first, first)


@dataclass(frozen=True)
class PhantomOptions:
    """The simulated data set that is used without `--data-root` and `--manifest`.

    Attributes:
        phantom_subjects: number of subjects.
        phantom_size: voxels along each axis.
        phantom_test_subjects: subjects held out for the final evaluation; `--folds` and `--split-file` go first.
    """

    phantom_subjects: int = 24
    phantom_size: tuple[int, int, int] = (96, 112, 96)
    phantom_test_subjects: int = 4

    def __post_init__(self) -> None:
        _at_least("--phantom-test-subjects", self.phantom_test_subjects, 1)
        # One subject at least is left for training and one for validation.
        _at_least("--phantom-subjects", self.phantom_subjects, self.phantom_test_subjects + 2)


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Attributes:
        network: its name.
        width: channels of one modality at the finest level; None for the published number.
        activation_checkpointing: compute parts of the network again in the backward pass rather than keep what they
            computed: less memory, more time.
    """

    network: NetworkName = "rfnet"
    width: int | None = None
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class AugmentationOptions:
    """How crops are varied; the defaults are those of RFNet's published training.

    Attributes:
        augment_rotation_degrees: r; crops turn by a whole number of degrees from -r to r - 1, in the plane of two
            random axes.
        augment_interpolation: of the moved image; labels always take their nearest voxel.
        augment_scale: s; intensities are multiplied by a number from 1 - s to 1 + s.
        augment_shift: t; after that, a number from -t to t is added.
        augment_intensity_per_slice: draw these for each modality and slice, as published, not for each modality.
        augment_flip: turn each axis around with probability 1/2.
        augment_scaling: s; what is shown is enlarged by a factor from 1 - s to 1 + s; 0 as published.
        augment_elastic: voxels by which the control points of a smooth deformation move, 8 at most; 0 as published.
    """

    augment_rotation_degrees: int = 10
    augment_interpolation: Literal["nearest", "linear"] = "nearest"
    augment_scale: float = 0.1
    augment_shift: float = 0.1
    augment_intensity_per_slice: bool = True
    augment_flip: bool = True
    augment_scaling: float = 0.0
    augment_elastic: float = 0.0

    def __post_init__(self) -> None:
        try:
            self.settings()
        except ValueError as error:
            names, problem = str(error).split(": ", maxsplit=1)
            raise ValueError(
                f"{', '.join(_flag(f'augment_{name}') for name in names.split(', '))}: {problem}"
            ) from None

    def settings(self) -> AugmentationSettings:
        """What `gss_train.data.augment` takes."""
        fields = dataclasses.asdict(self)
        return AugmentationSettings(**{name.removeprefix("augment_"): value for name, value in fields.items()})


@dataclass(frozen=True)
class TrainingOptions:
    """The schedule.

    Attributes:
        gss: train with group self-support; without it the published baseline.
        init_from: checkpoint to start from, of this software or a public one; with GSS it replaces the baseline stage.
        baseline_epochs: epochs of the baseline that GSS starts from.
        rounds: rounds of GSS training, each starting from the last one's weights with a fresh optimiser.
        epochs: epochs of a round (with `--no-gss`: of the baseline).
        steps_per_epoch: optimiser steps in an epoch.
        batch_size: crops in a step.
        learning_rate: at the start of a stage; decays by (1 - epoch / epochs) ** 0.9.
        weight_decay: of Adam (amsgrad).
        precision: bfloat16 computes and keeps activations in 16 bits where that is safe (autocast): less memory.
            Weights, losses and the evaluation stay in float32.
        fusion_warmup_epochs: first epochs of a baseline in which the fused prediction does not count.
    """

    gss: bool = True
    init_from: Path | None = None
    baseline_epochs: int = 300
    rounds: int = 5
    epochs: int = 300
    steps_per_epoch: int = 150
    batch_size: int = 2
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    precision: PrecisionName = "float32"
    fusion_warmup_epochs: int = 20

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs", "steps_per_epoch", "batch_size"):
            _at_least(_flag(name), getattr(self, name), 1)
        for name in ("baseline_epochs", "fusion_warmup_epochs", "weight_decay"):
            _at_least(_flag(name), getattr(self, name), 0)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"--learning-rate: got {self.learning_rate}, need a finite number above 0")
        baseline_epochs = self.epochs if not self.gss else 0 if self.init_from else self.baseline_epochs
        if 0 < baseline_epochs <= self.fusion_warmup_epochs:
            raise ValueError(
                f"--fusion-warmup-epochs: got {self.fusion_warmup_epochs} for a baseline of {baseline_epochs} epochs, "
                "whose fused prediction would never be trained: need fewer"
            )


@dataclass(frozen=True)
class RunOptions:
    """The run itself.

    Attributes:
        preset: what the other settings default to: `paper` as published, `quick` for a first look in minutes; `auto`
            is `quick` without scans of yours or without a GPU, else `paper`.
        output: folder of the run; by default one under `runs/`, named by data set, network and time.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
        seed: of weights, crops, augmentation and masks.
    """

    preset: PresetName = "auto"
    output: Path | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("--seed", self.seed, 0)


@dataclass(frozen=True)
class Config:
    """Train a segmentation network for missing modalities on BraTS, with and without group self-support."""

    data: DataOptions
    phantom: PhantomOptions = field(default_factory=PhantomOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def with_dataset(self, name: str) -> Config:
        """The same settings for the data set that `--dataset auto` turned out to be."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, dataset=cast("DatasetName", name)))

    def to_json(self) -> dict[str, Any]:
        """The tree as JSON values."""
        return _json_value(dataclasses.asdict(self))  # type: ignore[no-any-return]


def preset_config(preset: Literal["quick", "paper"], network: NetworkName = "rfnet") -> Config:
    """The settings that a preset stands for; the data set is left for the command line to fill in."""
    return _quick(network) if preset == "quick" else _paper(network)


def _paper(network: NetworkName) -> Config:
    """The networks' published schedules."""
    crop, training = 80, TrainingOptions()
    if network == "mmformer":
        # Published are passes over the training subjects; this many steps are one of BraTS2020's 219.
        crop = 128
        training = TrainingOptions(
            baseline_epochs=1000, epochs=1000, steps_per_epoch=28, batch_size=8, fusion_warmup_epochs=0
        )
    elif network == "robustseg":
        training = TrainingOptions(batch_size=1, learning_rate=1e-4, fusion_warmup_epochs=0)
    elif network == "uhved":
        crop = 112
        training = TrainingOptions(batch_size=1, learning_rate=1e-3, fusion_warmup_epochs=0)
    return Config(
        data=DataOptions(dataset=tyro.MISSING, crop_size=(crop,)),
        network=NetworkOptions(network=network),
        training=training,
    )


_QUICK_WIDTHS: dict[NetworkName, int] = {"rfnet": 8, "mmformer": 4, "robustseg": 4, "uhved": 4}


def _quick(network: NetworkName) -> Config:
    """A first look in minutes."""
    return Config(
        data=DataOptions(
            dataset=tyro.MISSING,
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
    )


def parse_config(arguments: list[str] | None = None) -> Config:
    """Read the command line.

    The preset is picked first, so that `--help` shows the values that hold.

    Raises:
        ValueError: a value out of range; the message names the flag.
        SystemExit: an unknown or unreadable flag, or `--help`.
    """
    # Faults are left for tyro to find, which says them better.
    selection = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    selection.add_argument("--preset", nargs="?", default="auto")
    selection.add_argument("--data-root", "--data_root", nargs="?")
    selection.add_argument("--manifest", nargs="?")
    selection.add_argument("--device", nargs="?", default="auto")
    selection.add_argument("--network", nargs="?", default="rfnet")
    chosen, _ = selection.parse_known_args(arguments)
    preset = chosen.preset
    if preset == "auto":
        has_gpu = torch.cuda.is_available() and chosen.device != "cpu"
        has_scans = chosen.data_root is not None or chosen.manifest is not None
        preset = "paper" if has_scans and has_gpu else "quick"
    network = cast("NetworkName", chosen.network if chosen.network in get_args(NetworkName) else "rfnet")
    config: Config = tyro.cli(
        Annotated[Config, tyro.conf.OmitArgPrefixes],
        default=preset_config("paper" if preset == "paper" else "quick", network),
        args=arguments,
        prog="python -m gss_train.main",
    )
    return dataclasses.replace(config, run=dataclasses.replace(config.run, preset=preset))


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value
