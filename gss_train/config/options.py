"""Every setting of a training run: one dataclass tree, from which command line and `config.json` are made."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from gss_train.data import AugmentationSettings
from gss_train.phantom import PHANTOM_DATASETS

DatasetName = Literal["auto", "brats2015", "brats2018", "brats2019", "brats2020", "brats2021", "brats2023", "custom"]
NetworkName = Literal["rfnet", "mmformer", "robustseg", "uhved"]
PresetName = Literal["auto", "quick", "paper", "lean"]
PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]


def flag_of(name: str) -> str:
    """The flag of an option, as messages name it."""
    return "--" + name.replace("_", "-")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least or math.isinf(value):
        raise ValueError(f"{flag_of(name)}: got {value}, need {least} or more")


def _above_zero(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{flag_of(name)}: got {value}, need a finite number above 0")


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
        _at_least("workers", self.workers, 0)
        _at_least("split_seed", self.split_seed, 0)
        for name in ("max_training_subjects", "max_test_subjects"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
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
                    raise ValueError(f"{flag_of(name)}: needs --dataset custom, got --dataset {self.dataset}")
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
            _at_least("folds", self.folds, 2)
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
        _at_least("phantom_test_subjects", self.phantom_test_subjects, 1)
        # One subject at least is left for training and one for validation.
        _at_least("phantom_subjects", self.phantom_subjects, self.phantom_test_subjects + 2)


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
                f"{', '.join(flag_of(f'augment_{name}') for name in names.split(', '))}: {problem}"
            ) from None

    def settings(self) -> AugmentationSettings:
        """What `gss_train.data.augmentation.augment` takes."""
        fields = dataclasses.asdict(self)
        return AugmentationSettings(**{name.removeprefix("augment_"): value for name, value in fields.items()})


@dataclass(frozen=True)
class TrainingOptions:
    """The schedule, and how a step is computed.

    Attributes:
        gss: train with group self-support; without it the published baseline.
        init_from: checkpoint to start from, of this software or a public one; with GSS it replaces the baseline stage.
        baseline_epochs: epochs of the baseline that GSS starts from.
        rounds: rounds of GSS training, each starting from the last one's weights with a fresh optimiser.
        epochs: epochs of a round (with `--no-gss`: of the baseline).
        steps_per_epoch: optimiser steps in an epoch. mmFormer's published epoch is a pass over the training subjects,
            so its `paper` has 31 for BraTS2015, 25 for BraTS2018 and 28 for BraTS2020 and all others.
        batch_size: crops in an optimiser step, of all processes and passes together.
        learning_rate: at the start of a stage; decays by (1 - epoch / epochs) ** 0.9.
        weight_decay: of Adam (amsgrad).
        fusion_warmup_epochs: first epochs of a baseline in which the fused prediction does not count.
        accumulate: passes that a process splits its crops of a step into: less memory, more time. Equal to one pass
            with `--dice per-sample`, but for rounding and for what mmFormer and U-HVED draw inside the network; with
            the published batch-wide Dice each pass has a Dice of its own, and what is learnt differs. 1 as published.
        dice: the supervised losses over the whole batch, as published, or of each sample by itself, then averaged.
        precision: the network computes and keeps activations in float32, as published, or in 16 bits where that is
            safe (autocast), which rounds more and takes less memory; float16 with scaled losses, for GPUs without
            bfloat16. `auto` is bfloat16 on a GPU that computes in it, else float32. Weights, losses and the evaluation
            stay in float32.
        channels_last: keep the channels of a voxel together in memory, with which some GPUs convolve faster; equal but
            for rounding.
        compile: translate the network with `torch.compile` before the first step, which can take minutes; equal but for
            rounding.
        ema: decay for each step of a moving average of the weights, such as 0.999, which is validated and evaluated in
            their place; it takes one more copy of them. None, as published: without.
        clip_gradient: largest norm of the gradient of all weights, which is scaled down to it. None, as published:
            without.
        gss_warmup: first steps of every GSS round in which the GSS loss does not count; 0 as published.
        gss_ramp: steps after these over which the GSS loss's weight grows linearly to its full value; 0 as published.
        max_bad_steps: steps in a row with a loss or gradient that is not finite, which leave the weights alone; one
            more ends the run.
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
    fusion_warmup_epochs: int = 20
    accumulate: int = 1
    dice: Literal["batch", "per-sample"] = "batch"
    precision: PrecisionName = "auto"
    channels_last: bool = False
    compile: bool = False
    ema: float | None = None
    clip_gradient: float | None = None
    gss_warmup: int = 0
    gss_ramp: int = 0
    max_bad_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs", "steps_per_epoch", "batch_size", "accumulate"):
            _at_least(name, getattr(self, name), 1)
        for name in ("baseline_epochs", "fusion_warmup_epochs", "weight_decay", "max_bad_steps"):
            _at_least(name, getattr(self, name), 0)
        _above_zero("learning_rate", self.learning_rate)
        if self.clip_gradient is not None:
            _above_zero("clip_gradient", self.clip_gradient)
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"--ema: got {self.ema}, need a decay above 0 and below 1, such as 0.999")
        if self.batch_size % self.accumulate:
            raise ValueError(f"--accumulate: got {self.accumulate}, need a divisor of --batch-size {self.batch_size}")
        self._check_warmups()

    def _check_warmups(self) -> None:
        if 0 < self.epochs_of_baseline <= self.fusion_warmup_epochs:
            raise ValueError(
                f"--fusion-warmup-epochs: got {self.fusion_warmup_epochs} for a baseline of {self.epochs_of_baseline} "
                "epochs, whose fused prediction would never be trained: need fewer"
            )
        for name in ("gss_warmup", "gss_ramp"):
            _at_least(name, getattr(self, name), 0)
            if getattr(self, name) and not self.gss:
                raise ValueError(f"{flag_of(name)}: cannot go with --no-gss, which has no GSS loss")
        steps = self.epochs * self.steps_per_epoch
        if self.gss_warmup + self.gss_ramp >= steps:
            name = "gss_warmup" if self.gss_warmup >= steps else "gss_ramp"
            raise ValueError(
                f"{flag_of(name)}: got {getattr(self, name)}: --gss-warmup {self.gss_warmup} and --gss-ramp "
                f"{self.gss_ramp} leave no step with the full GSS loss in a round of {steps} "
                "(--epochs x --steps-per-epoch): need fewer"
            )

    @property
    def epochs_of_baseline(self) -> int:
        """Epochs of the baseline stage; 0 where there is none."""
        if not self.gss:
            return self.epochs
        return 0 if self.init_from is not None else self.baseline_epochs


@dataclass(frozen=True)
class ValidationOptions:
    """Validation during training, on subjects that are neither trained nor tested on.

    Attributes:
        validate_every: epochs from one validation to the next; 0 for none.
        validation_subjects: use no more than so many.
        validation_subsets: `few`: all four modalities, and each by itself; `all` 15 subsets take three times as long.
        early_stopping: validations of a stage without a better mean Dice after which the stage ends. None, as
            published: all stages have their full length.
    """

    validate_every: int = 10
    validation_subjects: int = 8
    validation_subsets: Literal["few", "all"] = "few"
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        _at_least("validate_every", self.validate_every, 0)
        _at_least("validation_subjects", self.validation_subjects, 1)
        if self.early_stopping is not None:
            _at_least("early_stopping", self.early_stopping, 1)
            if self.validate_every == 0:
                raise ValueError("--early-stopping: cannot go with --validate-every 0: it goes by validations")


@dataclass(frozen=True)
class RecordOptions:
    """What a run writes; nothing of this changes what is learnt.

    Attributes:
        resume: `auto` goes on with the run in `--output`, if there is one; `never` refuses a folder that has one.
        keep_checkpoints: newest checkpoints that are kept, besides the best one and each finished stage's.
        checkpoint_every: epochs from one checkpoint to the next.
        gather_every: steps after which losses and the like are read from the device, which holds it up.
        tensorboard: write scalars and figures for TensorBoard.
        figure_every: epochs from one figure to the next; 0 for none.
    """

    resume: Literal["auto", "never"] = "auto"
    keep_checkpoints: int = 2
    checkpoint_every: int = 1
    gather_every: int = 10
    tensorboard: bool = True
    figure_every: int = 1

    def __post_init__(self) -> None:
        for name in ("keep_checkpoints", "checkpoint_every", "gather_every"):
            _at_least(name, getattr(self, name), 1)
        _at_least("figure_every", self.figure_every, 0)


@dataclass(frozen=True)
class RunOptions:
    """The run itself.

    Attributes:
        preset: what the other settings default to: `paper` as published; `lean` the same schedule with the least
            memory, by computing activations again and in bfloat16 on GPUs that can; `quick` for a first look in
            minutes. `auto` is `quick` without scans of yours or without a GPU, else `paper`.
        output: folder of the run; by default one under `runs/`, named by data set, network and time.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
        seed: of weights, crops, augmentation and masks.
    """

    preset: PresetName = "auto"
    output: Path | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class Config:
    """Train a segmentation network for missing modalities on BraTS, with and without group self-support."""

    data: DataOptions
    phantom: PhantomOptions = field(default_factory=PhantomOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    record: RecordOptions = field(default_factory=RecordOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        patience = self.validation.early_stopping
        if patience is None:
            return
        longest = max(self.training.epochs, self.training.epochs_of_baseline)
        # The stage's first validation is after its first epoch at the earliest, its last one of use before its last.
        if patience * self.validation.validate_every >= longest - 1:
            raise ValueError(
                f"--early-stopping: got {patience} validations, one every {self.validation.validate_every} epochs "
                f"(--validate-every), which end no stage early: the longest has {longest} epochs; need fewer"
            )

    def with_dataset(self, name: str) -> Config:
        """The same settings for the data set that `--dataset auto` turned out to be."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, dataset=cast("DatasetName", name)))

    def to_json(self) -> dict[str, Any]:
        """The tree as JSON values."""
        return _json_value(dataclasses.asdict(self))  # type: ignore[no-any-return]


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value
