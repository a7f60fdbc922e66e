"""Every option of a training run: one dataclass tree, from which command line and `config.json` are made."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from gss_kernels.settings import GSSSettings, check_settings
from gss_train.common import Triple, UserError, to_triple
from gss_train.data import AugmentationSettings, Spacing, published_splits, to_spacing
from gss_train.phantom import DEFAULT_SIZE, PHANTOM_DATASETS

DatasetName = Literal["auto", "brats2015", "brats2018", "brats2019", "brats2020", "brats2021", "brats2023", "custom"]
NetworkName = Literal["rfnet", "mmformer", "robustseg", "uhved"]
PresetName = Literal["auto", "quick", "paper", "lean"]
ProtocolName = Literal["own", "rfnet", "gss-released"]
SplitName = Literal["auto", "published", "published-1", "published-2", "published-3", "seeded"]
BoxName = Literal["whole", "released"]
ComputedPrecision = Literal["float32", "tf32", "bfloat16", "float16"]
PrecisionName = Literal["auto", ComputedPrecision]


class OptionError(UserError, ValueError):
    """The option of a name cannot have its value, or not beside the others; the message begins with its flag."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{flag_of(name)}: {problem}")
        self.name = name


def flag_of(name: str) -> str:
    """The flag of an option, as messages name it."""
    return "--" + name.replace("_", "-")


@contextmanager
def _as_options(prefix: str = "") -> Iterator[None]:
    """Errors that begin with the name of a setting are those of the option that it is from."""
    try:
        yield
    except ValueError as error:
        name, problem = str(error).split(": ", maxsplit=1)
        raise OptionError(f"{prefix}{name}", problem) from None


def _at_least(least: int, section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value is not None and not least <= value < math.inf:
            raise OptionError(name, f"got {value}, need {least} or more")


@dataclass(frozen=True)
class DataOptions:
    """Where the scans come from and how they are fed.

    Attributes:
        dataset: the BraTS edition; `auto` recognises the one below `--data-root`, `custom` is a data set of your own,
            listed by `--manifest`.
        data_root: folder of the raw data set; without it a phantom of BraTS2015, 2018 or 2020 is generated.
        manifest: your own data, a CSV or JSON with `subject, flair, t1ce, t1, t2, seg` (see the README).
        categories: what the labels of your own data mean; by default `<manifest's stem>.dataset.json` beside it.
        spacing: voxel size in mm that scans and labels are brought to, one number or three (left to right, front to
            back, bottom to top); None: that which they have. Scans of one subject may then be on different grids, and
            are where their affines place them. Predictions go back: scores are of the label's own voxels.
        box: that subjects are cut to: the `whole` brain, or as `released` by the authors of RFNet, GSS and mmFormer,
            whose code leaves out its last plane along each axis. `predict` sees the whole brain.
        cache: folder for phantoms and prepared volumes, reused by later runs.
        crop_size: voxels of a training crop, one number or three.
        tumour_share: share of crops placed on tumour; 0 as published (uniform crops).
        workers: loader processes; 0 loads in the training process.
        split: into training, validation and test subjects. `published` takes the published list of BraTS2015, 2020 or
            2023, `published-1` to `published-3` one of the three of BraTS2018, whose subjects have to be there;
            `seeded` draws one in the proportions of a published list, whose scores are not comparable with published
            ones. `auto` takes the published list (the first of BraTS2018) where the labelled subjects are exactly its
            own, else `seeded`; another `--split-seed` than 0, `--fold` and `--split-file` go first.
        split_seed: of a seeded split; apart from `--seed`, so that runs of different seeds, and runs that start from
            each other's checkpoints, keep the same test subjects.
        fold: which run of a cross-validation this is, from 0 to `--folds` - 1; every subject is tested in one of them.
        folds: runs of the cross-validation.
        split_file: a split of your own: a folder with train.txt, val.txt and test.txt; one train*.txt of several,
            with the others beside it; or a CSV of subjects and Training, Validation or Inference.
        skip_bad: leave out subjects whose scans have errors, and train and test on the others; `left_out.json` in the
            run folder says which. Without it any error stops the run before its first step.
        max_training_subjects: use no more than so many; None for all.
        max_test_subjects: score no more than so many; None for all.
    """

    dataset: DatasetName
    data_root: Path | None = None
    manifest: Path | None = None
    categories: Path | None = None
    spacing: tuple[float, ...] | None = None
    box: BoxName = "whole"
    cache: Path = Path("runs/cache")
    crop_size: tuple[int, ...] = (80,)
    tumour_share: float = 0.0
    workers: int = min(4, os.cpu_count() or 1)
    # What a run had before there was the option; what it defaults to is the presets' to say.
    split: SplitName = "seeded"
    split_seed: int = 0
    fold: int | None = None
    folds: int | None = None
    split_file: Path | None = None
    skip_bad: bool = False
    max_training_subjects: int | None = None
    max_test_subjects: int | None = None

    def __post_init__(self) -> None:
        if len(self.crop_size) not in {1, 3} or min(self.crop_size) < 1:
            raise OptionError("crop_size", f"got {self.crop_size}, need one positive number or three")
        if self.spacing is not None:
            try:
                to_spacing(self.spacing)
            except ValueError as error:
                raise OptionError("spacing", str(error)) from None
        if not 0 <= self.tumour_share <= 1:
            raise OptionError("tumour_share", f"got {self.tumour_share}, need a number from 0 to 1")
        _at_least(0, self, "workers", "split_seed")
        _at_least(1, self, "max_training_subjects", "max_test_subjects")
        _at_least(2, self, "folds")
        self._check_source()
        self._check_split()

    def _check_source(self) -> None:
        if self.dataset == "custom":
            if self.manifest is None:
                raise OptionError("manifest", "is missing, --dataset custom needs it")
            if self.data_root is not None:
                raise OptionError("data_root", "cannot go with --dataset custom, whose --manifest says where files are")
            return
        for name in ("manifest", "categories"):
            if getattr(self, name) is not None:
                raise OptionError(name, f"needs --dataset custom, got --dataset {self.dataset}")
        if self.data_root is None and self.dataset == "auto":
            raise OptionError("data_root", "is missing, --dataset auto needs it to recognise the BraTS edition")
        if self.data_root is None and self.dataset not in PHANTOM_DATASETS:
            raise OptionError(
                "data_root",
                f"is missing, --dataset {self.dataset} needs it: phantoms, which stand in for data, exist for "
                f"{', '.join(PHANTOM_DATASETS)} only",
            )

    def _check_split(self) -> None:
        if self.fold is None or self.folds is None:
            if self.fold is not None:
                raise OptionError("fold", "needs --folds")
            if self.folds is not None:
                raise OptionError("folds", "needs --fold")
        elif not 0 <= self.fold < self.folds:
            raise OptionError("fold", f"got {self.fold}, need a number from 0 to {self.folds - 1}")
        if self.split_file is not None and self.fold is not None:
            raise OptionError("split_file", "cannot go with --fold, each of them divides the subjects")
        if self.split_file is not None and self.split_seed != 0:
            raise OptionError("split_seed", "cannot go with --split-file, which leaves nothing to draw")
        if self.split not in {"auto", "seeded"}:
            self._check_published()

    def _check_published(self) -> None:
        for name, unused in (("fold", None), ("split_file", None), ("split_seed", 0)):
            if getattr(self, name) != unused:
                problem = f"{self.split} cannot go with {flag_of(name)}, which divides the subjects too; leave out one"
                raise OptionError("split", problem)
        if self.uses_phantom:
            raise OptionError("split", f"{self.split} needs --data-root, a phantom is on no list; leave out --split")
        known = published_splits(self.dataset)
        if self.dataset == "auto" or self.split in known:
            return
        remedy = f"has {', '.join(known)}" if known else "has no published list, take seeded, or --split-file for yours"
        raise OptionError("split", f"got {self.split}, but --dataset {self.dataset} {remedy}")

    @property
    def uses_phantom(self) -> bool:
        """Whether there are no scans, and a phantom stands in for them."""
        return self.data_root is None and self.manifest is None

    @property
    def voxel_size(self) -> Spacing | None:
        """Millimetres along each axis that scans are brought to."""
        return None if self.spacing is None else to_spacing(self.spacing)

    @property
    def crop(self) -> Triple:
        """Voxels of a crop along each axis."""
        return to_triple(self.crop_size)


@dataclass(frozen=True)
class PhantomOptions:
    """The simulated data set that is used without `--data-root` and `--manifest`.

    Attributes:
        phantom_subjects: number of subjects.
        phantom_size: voxels along each axis.
        phantom_test_subjects: subjects held out for the final evaluation; `--folds` and `--split-file` go first.
    """

    phantom_subjects: int = 24
    phantom_size: Triple = DEFAULT_SIZE
    phantom_test_subjects: int = 4

    def __post_init__(self) -> None:
        _at_least(1, self, "phantom_test_subjects")
        # One subject at least is left for training and one for validation.
        _at_least(self.phantom_test_subjects + 2, self, "phantom_subjects")


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
    """How crops are varied; the protocol (--protocol) says what the published training did.

    Attributes:
        augment_rotation_degrees: r; crops turn by a whole number of degrees from -r to r - 1, in the plane of two
            random axes.
        augment_interpolation: of the moved image; labels always take their nearest voxel.
        augment_scale: s; intensities are multiplied by a number from 1 - s to 1 + s.
        augment_shift: t; after that, a number from -t to t is added.
        augment_intensity_per_slice: draw these for each modality and slice, as published, not for each modality.
        augment_flip: turn each axis around with probability 1/2.
        augment_scaling: s; what is shown is enlarged by a factor from 1 - s to 1 + s; 0 in RFNet's training.
        augment_scaling_per_axis: draw that factor for each axis, as U-HVED was trained, not for all three.
        augment_elastic: voxels by which the control points of a smooth deformation move, 8 at most; 0 as published.
    """

    augment_rotation_degrees: int = 10
    augment_interpolation: Literal["nearest", "linear"] = "nearest"
    augment_scale: float = 0.1
    augment_shift: float = 0.1
    augment_intensity_per_slice: bool = True
    augment_flip: bool = True
    augment_scaling: float = 0.0
    augment_scaling_per_axis: bool = False
    augment_elastic: float = 0.0

    def __post_init__(self) -> None:
        with _as_options("augment_"):
            self.settings()

    def settings(self) -> AugmentationSettings:
        """What `gss_train.data.augmentation.augment` takes."""
        fields = dataclasses.asdict(self)
        return AugmentationSettings(**{name.removeprefix("augment_"): value for name, value in fields.items()})


@dataclass(frozen=True)
class TrainingOptions:
    """The schedule, and how a step is computed.

    Attributes:
        gss: train with group self-support; without it the published baseline.
        init_from: a run folder, one of its checkpoints, an exported network or a public checkpoint to start from; with
            GSS it replaces the baseline stage.
        baseline_epochs: epochs of the baseline that GSS starts from.
        rounds: rounds of GSS training, each starting from the last one's weights with a fresh optimiser.
        epochs: epochs of a round (with `--no-gss`: of the baseline).
        steps_per_epoch: optimiser steps in an epoch. mmFormer's published epoch is a pass over the training subjects,
            so its `paper` has those of the published lists: 31 for BraTS2015, 25 for 2018, 110 for 2023, else 28.
        batch_size: crops in an optimiser step, of all processes and passes together.
        learning_rate: of Adam, at the start of a stage.
        learning_rate_decay: `poly` multiplies it by (1 - epoch / epochs) ** 0.9 in each epoch, `none` leaves it.
        amsgrad: divide by the largest second moment so far, not by the last.
        weight_decay: times the weights is added to their gradient.
        decayed_weights: `all`, or the `kernels` alone: neither biases nor what scales and shifts normalised features.
        subset_draw: of the modalities that the fusion sees in a step. `subset`: all 15 subsets alike; `modality`: each
            with probability 1/2, and where that leaves none any one of them; `count`: how many first, then which.
        fusion_warmup_epochs: first epochs of a baseline in which the fused prediction does not count.
        accumulate: passes that a process splits its crops of a step into: less memory, more time. Equal to one pass
            with `--dice per-sample`, but for rounding and for what mmFormer and U-HVED draw inside the network; with
            the published batch-wide Dice each pass has a Dice of its own, and what is learnt differs. 1 as published.
        dice: the supervised losses over the whole batch, as published, or of each sample by itself, then averaged.
        dice_denominator: of the baseline's Dice loss: the `probabilities` or their `squares`, and the labels.
        cross_entropy: of the baseline: `weighted` by how rare a category is in the sample, or `plain`.
        precision: that the network computes in. `float32` is that throughout. `tf32` rounds what convolutions multiply
            to 10 bits of mantissa, on NVIDIA GPUs of capability 8.0 or more: what PyTorch, and with it the public
            training code, does there by itself; elsewhere it is float32. `bfloat16` and `float16` compute and keep
            activations in 16 bits where that is safe (autocast), which rounds more and takes less memory; float16 with
            scaled losses, for GPUs without bfloat16. `auto` is bfloat16 on a GPU that computes in it, else float32.
            Weights, losses, probabilities and scores stay in float32.
        channels_last: keep the channels of a voxel together in memory, with which some GPUs convolve faster; equal but
            for rounding.
        compile: translate the network with `torch.compile` before the first step, which can take minutes; equal but for
            rounding.
        deterministic: have cuDNN take algorithms that repeat their result to the bit, as the public training code does,
            rather than time them and take the fastest; other operations on a GPU still do not repeat theirs.
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
    learning_rate_decay: Literal["poly", "none"] = "poly"
    amsgrad: bool = True
    weight_decay: float = 1e-4
    decayed_weights: Literal["all", "kernels"] = "all"
    subset_draw: Literal["subset", "modality", "count"] = "subset"
    fusion_warmup_epochs: int = 20
    accumulate: int = 1
    dice: Literal["batch", "per-sample"] = "batch"
    dice_denominator: Literal["probabilities", "squares"] = "probabilities"
    cross_entropy: Literal["weighted", "plain"] = "weighted"
    precision: PrecisionName = "auto"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    ema: float | None = None
    clip_gradient: float | None = None
    gss_warmup: int = 0
    gss_ramp: int = 0
    max_bad_steps: int = 10

    def __post_init__(self) -> None:
        _at_least(1, self, "rounds", "epochs", "steps_per_epoch", "batch_size", "accumulate")
        _at_least(0, self, "baseline_epochs", "fusion_warmup_epochs", "weight_decay", "max_bad_steps")
        _at_least(0, self, "gss_warmup", "gss_ramp")
        for name in ("learning_rate", "clip_gradient"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(name, f"got {value}, need a finite number above 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise OptionError("ema", f"got {self.ema}, need a decay above 0 and below 1, such as 0.999")
        if self.batch_size % self.accumulate:
            raise OptionError("accumulate", f"got {self.accumulate}, need a divisor of --batch-size {self.batch_size}")
        if 0 < self.epochs_of_baseline <= self.fusion_warmup_epochs:
            raise OptionError(
                "fusion_warmup_epochs",
                f"got {self.fusion_warmup_epochs} for a baseline of {self.epochs_of_baseline} epochs, whose fused "
                "prediction would never be trained: need fewer",
            )
        self._check_gss_warmup()

    def _check_gss_warmup(self) -> None:
        for name in ("gss_warmup", "gss_ramp"):
            if getattr(self, name) and not self.gss:
                raise OptionError(name, "cannot go with --no-gss, which has no GSS loss")
        steps = self.epochs * self.steps_per_epoch
        if self.gss_warmup + self.gss_ramp >= steps:
            name = "gss_warmup" if self.gss_warmup >= steps else "gss_ramp"
            raise OptionError(
                name,
                f"got {getattr(self, name)}: --gss-warmup {self.gss_warmup} and --gss-ramp {self.gss_ramp} leave no "
                f"step with the full GSS loss in a round of {steps} (--epochs x --steps-per-epoch): need fewer",
            )

    @property
    def num_stages(self) -> int:
        """The baseline, if it is trained, and with GSS its rounds."""
        return (self.epochs_of_baseline > 0) + self.gss * self.rounds

    @property
    def epochs_of_baseline(self) -> int:
        """Epochs of the baseline stage; 0 where there is none."""
        if not self.gss:
            return self.epochs
        return 0 if self.init_from is not None else self.baseline_epochs


@dataclass(frozen=True)
class SelfSupportOptions:
    """The GSS loss; the defaults are those of its paper (Qiu et al., ICCV 2023).

    Attributes:
        temperature: T, by which logits are divided for the vote's target and for those who learn from it.
        leader_threshold: probability above which a leader is confident.
        member_threshold: likewise of the other modalities, which are asked where no leader is.
        leader_blend: share of the leaders' minimum in the target where some of them are confident and some are not.
        mask_ratio: share of the voxels that a modality does not learn from in a step.
        divergence: from the target to a modality's prediction: `kl`, or `cross_entropy`, which has the same gradient.
        semantics: of the vote: `paper`, or `released` with the two quirks of the public code (docs/deviations.md).
        class_weighting: weight categories by how rare they are in the target.
        separate_weight: of the modalities' own supervised losses in the GSS stages.
        gss_weight: w; the GSS loss counts w * T ** 2 / 10.
    """

    temperature: float = 8.0
    leader_threshold: float = 0.75
    member_threshold: float = 0.85
    leader_blend: float = 0.3
    mask_ratio: float = 0.2
    divergence: Literal["kl", "cross_entropy"] = "kl"
    semantics: Literal["paper", "released"] = "paper"
    class_weighting: bool = True
    separate_weight: float = 0.7
    gss_weight: float = 0.3

    def __post_init__(self) -> None:
        with _as_options():
            self.settings()
        _at_least(0, self, "separate_weight", "gss_weight")

    def settings(self) -> GSSSettings:
        """What the GSS loss takes."""
        fields = dataclasses.asdict(self)
        return check_settings(**{name: fields[name] for name in GSSSettings._fields if name in fields})


@dataclass(frozen=True)
class ValidationOptions:
    """Validation during training, on subjects that are neither trained nor tested on.

    Attributes:
        validate_every: epochs from one validation to the next; 0 for none.
        validation_subjects: use no more than so many.
        validation_subsets: `few`: all four modalities, and each by itself; `all` 15 subsets take three times as long.
        stage_validation: after each stage also validate on all validation subjects and all 15 subsets, unless there is
            no validation at all. It decides over nothing.
        early_stopping: validations of a stage without a better mean Dice after which the stage ends. None, as
            published: all stages have their full length.
    """

    validate_every: int = 10
    validation_subjects: int = 8
    validation_subsets: Literal["few", "all"] = "few"
    # What a run had before there was the option; what it defaults to is the presets' to say.
    stage_validation: bool = False
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        _at_least(0, self, "validate_every")
        _at_least(1, self, "validation_subjects", "early_stopping")
        if self.early_stopping is not None and self.validate_every == 0:
            raise OptionError("early_stopping", "cannot go with --validate-every 0: it goes by validations")


@dataclass(frozen=True)
class RecordOptions:
    """What a run writes; nothing of this changes what is learnt.

    Attributes:
        resume: `auto` goes on with the run in `--output`, if there is one; `never` refuses a folder that has one.
        keep_checkpoints: newest checkpoints that are kept, besides the best one and each finished stage's.
        checkpoint_minutes: from one checkpoint to the next, which is written beside the training; more, in proportion,
            in runs of more than two days; 0 writes one after each epoch. One is also written at the end of each stage,
            and when a signal ends the training.
        gather_every: steps after which losses and the like are read from the device, which holds it up.
        tensorboard: write scalars and figures for TensorBoard.
        figure_every: epochs from one figure to the next; 0 for none.
        final_evaluation: what the run computes at its end on the test subjects: `all` Dice, HD95, sensitivity and
            precision; `dice` Dice alone; `none` nothing. `python -m gss_train.evaluate` can compute the scores later.
        final_weights: which weights are scored then: the `last`, or `all`, those of the best validation and of each
            finished stage too.
    """

    resume: Literal["auto", "never"] = "auto"
    keep_checkpoints: int = 2
    checkpoint_minutes: float = 15.0
    gather_every: int = 10
    tensorboard: bool = True
    figure_every: int = 25
    final_evaluation: Literal["none", "dice", "all"] = "all"
    final_weights: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        _at_least(1, self, "keep_checkpoints", "gather_every")
        _at_least(0, self, "checkpoint_minutes", "figure_every")
        if self.final_weights != "last" and self.final_evaluation == "none":
            raise OptionError("final_weights", "cannot go with --final-evaluation none, which scores nothing")


@dataclass(frozen=True)
class RunOptions:
    """The run itself.

    Attributes:
        preset: what the other options default to: `paper` as published; `lean` the same schedule with the least
            memory, by computing activations again and in bfloat16 on GPUs that can; `quick` for a first look in
            minutes. `auto` is `quick` without scans of yours or without a GPU, else `paper`.
        protocol: whose published training that is: of the network's `own` authors; of `rfnet`, for comparisons of
            networks at equal training; or `gss-released`, all that the public GSS code does, with RFNet. `quick` takes
            sizes, schedule and learning rate from none of them.
        output: folder of the run; by default one under `runs/`, named by data set, network and time.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
        seed: of weights, crops, augmentation and masks.
        ignore_resources: begin even where memory or disk are expected not to do, with a warning; a run that goes on and
            one on a phantom are merely warned anyway.
    """

    preset: PresetName = "auto"
    protocol: ProtocolName = "own"
    output: Path | None = None
    device: str = "auto"
    seed: int = 0
    ignore_resources: bool = False

    def __post_init__(self) -> None:
        _at_least(0, self, "seed")


@dataclass(frozen=True)
class Config:
    """Train a segmentation network for missing modalities on BraTS, with and without group self-support."""

    data: DataOptions
    phantom: PhantomOptions = field(default_factory=PhantomOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    self_support: SelfSupportOptions = field(default_factory=SelfSupportOptions)
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    record: RecordOptions = field(default_factory=RecordOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        network = self.network.network
        if self.run.protocol == "gss-released" and network != "rfnet":
            raise OptionError("protocol", f"got gss-released, which trains rfnet alone, for --network {network}")
        self._check_early_stopping()

    def _check_early_stopping(self) -> None:
        patience = self.validation.early_stopping
        if patience is None:
            return
        longest = max(self.training.epochs, self.training.epochs_of_baseline)
        # The stage's first validation is after its first epoch at the earliest, its last one of use before its last.
        if patience * self.validation.validate_every >= longest - 1:
            raise OptionError(
                "early_stopping",
                f"got {patience} validations, one every {self.validation.validate_every} epochs (--validate-every), "
                f"which end no stage early: the longest has {longest} epochs; need fewer",
            )

    def with_dataset(self, name: str) -> Config:
        """The same options for the data set that `--dataset auto` turned out to be."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, dataset=cast("DatasetName", name)))

    def to_json(self) -> dict[str, Any]:
        """The tree as JSON values."""
        return cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(self), default=str)))


# Options that runs of earlier versions have, and that said nothing of what is learnt.
_GONE = (("record", "checkpoint_every"),)


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run as JSON values, with those that there were not yet then, as the run was trained.

    Args:
        values: what `Config.to_json` gave then; what is no section of options is left as it is.
    """
    # The data set has no default; a run has always stated it.
    defaults = Config(DataOptions("brats2020")).to_json()
    network = values.get("network")
    if isinstance(network, dict) and network.get("network") == "robustseg":
        defaults["training"]["dice_denominator"] = "squares"
    known = {
        name: {**options, **values.get(name, {})}
        for name, options in defaults.items()
        if isinstance(values.get(name, {}), dict)
    }
    for section, name in _GONE:
        known.get(section, {}).pop(name, None)
    return {**values, **known}


SECTIONS: dict[str, type[Any]] = get_type_hints(Config)
# For each section, the types of its options by name; no two sections have an option of the same name.
KINDS: dict[str, dict[str, Any]] = {section: get_type_hints(kind) for section, kind in SECTIONS.items()}
SECTION_OF = {name: section for section, kinds in KINDS.items() for name in kinds}


def options_of(tree: object) -> dict[str, Any]:
    """All options of a tree by name."""
    return {name: getattr(getattr(tree, section), name) for name, section in SECTION_OF.items()}


def make_config(options: Mapping[str, Any], file: Path | str | None = None, flags: Collection[str] = ()) -> Config:
    """The tree that options make.

    Args:
        options: all of them by name.
        file: where they are from, if they are from a file, for messages.
        flags: names of those that are from flags instead.

    Raises:
        UserError: a value is out of range, or contradicts another.
    """
    try:
        return Config(
            **{section: kind(**{name: options[name] for name in KINDS[section]}) for section, kind in SECTIONS.items()}
        )
    except OptionError as error:
        if file is None or error.name in flags:
            raise
        raise UserError(f"{file}: {SECTION_OF[error.name]}.{error.name}: {error}") from None
