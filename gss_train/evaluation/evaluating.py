"""The work of `python -m gss_train.evaluate`: load a network, score it on whole subjects, write tables and figures."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from gss_train.common import UserError, peak_memory_bytes, pick_device, show_progress
from gss_train.config import DatasetName
from gss_train.data import PreparedSubject
from gss_train.evaluation.files import Evaluation, read_segmented, write_evaluation, write_segmented
from gss_train.evaluation.metrics import MEASURES
from gss_train.evaluation.output_folder import check_output, default_output, open_replacing_folder
from gss_train.evaluation.scoring import evaluate_subsets
from gss_train.evaluation.subjects import (
    EvaluationData,
    PartName,
    choose_data,
    find_part,
    prepare_part,
    refuse_training_subjects,
)
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.evaluation.tables import markdown_table
from gss_train.inference import SlidingWindow
from gss_train.runs import StoredNetwork, TrainedNetwork, WeightsName, build_trained, read_stored

_SPLITTING = ("split_file", "split_seed", "fold", "folds")
_DATA_OPTIONS = ("dataset", "data_root", "manifest", "categories", *_SPLITTING, "crop_size", "cache")
_HD95 = "hd95_mm"


@dataclass(frozen=True)
class EvaluateArguments:
    """Score a trained network on whole subjects, from all 15 subsets of the modalities.

    A run folder, or a checkpoint in it, knows its data, its split and its settings: nothing else needs to be said. For
    other files say which scans to score.

    Attributes:
        model: a run folder, one of its checkpoints, an exported network, or a checkpoint that the authors of RFNet, GSS
            or mmFormer publish.
        weights: of a run folder: those after its last step, or those of its best validation.
        part: of the split. Subjects that the network was trained on are scored with `train` only.
        max_subjects: score no more than so many; None for all.
        dataset: the BraTS edition of the scans; `auto` recognises the one below `--data-root`, `custom` is a data set
            of your own, listed by `--manifest`. By default that of the training.
        data_root: folder of the raw data set; by default that of the run.
        manifest: your own data, a CSV or JSON with `subject, flair, t1ce, t1, t2, seg` (see the README).
        categories: what the labels of your own data mean; by default `<manifest's stem>.dataset.json` beside it.
        split_file: a published split in place of the run's; as for training.
        split_seed: of a division in place of the run's; as for training.
        fold: of a cross-validation in place of the run's split; as for training.
        folds: of the cross-validation.
        skip_bad: leave out the subjects whose scans have errors.
        cache: folder for prepared volumes; by default that of the run, or `runs/cache`.
        crop_size: voxels of the sliding window, one number or three; by default as trained. mmFormer takes no other.
        weighting: of a window's probabilities: `uniform` as published, or `gaussian`, by which its middle counts more.
        flips: average over the eight ways to flip the axes, which takes eight times as long.
        hd95: compute the 95th percentile of the Hausdorff distance too.
        view_subjects: keep the scans and predictions of so many subjects, for the report's viewer and for figures.
        output: folder of the results. By default `evaluation` in the run folder, where the run has put its own, or a
            name that says what is different; for a file, beside it.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    weights: WeightsName = "last"
    part: PartName = "test"
    max_subjects: int | None = None
    dataset: DatasetName | None = None
    data_root: Path | None = None
    manifest: Path | None = None
    categories: Path | None = None
    split_file: Path | None = None
    split_seed: int | None = None
    fold: int | None = None
    folds: int | None = None
    skip_bad: bool = False
    cache: Path | None = None
    crop_size: tuple[int, ...] | None = None
    weighting: Literal["uniform", "gaussian"] = "uniform"
    flips: bool = False
    hd95: bool = True
    view_subjects: int = 4
    output: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.max_subjects is not None and self.max_subjects < 1:
            raise ValueError(f"--max-subjects: got {self.max_subjects}, need 1 or more")
        if self.view_subjects < 0:
            raise ValueError(f"--view-subjects: got {self.view_subjects}, need 0 or more")
        if self.crop_size is not None and (len(self.crop_size) not in {1, 3} or min(self.crop_size) < 1):
            raise ValueError(f"--crop-size: got {self.crop_size}, need one positive number or three")

    def stated_data(self) -> dict[str, Any]:
        """The options of `DataOptions` that were stated, by name."""
        stated = {name: getattr(self, name) for name in _DATA_OPTIONS if getattr(self, name) is not None}
        return {**stated, "skip_bad": True} if self.skip_bad else stated


def parse_arguments(arguments: list[str] | None = None) -> EvaluateArguments:
    """Read the command line.

    Raises:
        SystemExit: a flag that is unknown, unreadable or out of range, or `--help`.
    """
    return tyro.cli(EvaluateArguments, args=arguments, prog="python -m gss_train.evaluate")


def run(options: EvaluateArguments) -> None:
    """Score a network, and write the evaluation's folder once all of it is there.

    Raises:
        UserError: the network, the scans or the folder cannot be used.
        OSError: a file cannot be written.
        ModuleNotFoundError: an optional package is needed and not installed.
    """
    # Before the work, so that a missing package is not found out after it.
    from gss_train.report import save_evaluation_figures  # noqa: PLC0415

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun: an evaluation is one process; start it with python")
    device = pick_device(options.device)
    stored = read_stored(options.model, options.weights)
    output = options.output or default_output(options.model, _differences(options, stored))
    check_output(output)
    data = choose_data(stored, options.stated_data())
    crop_size = None if options.crop_size is None else data.config.data.crop
    trained = build_trained(stored, device, dataset=data.dataset, crop_size=crop_size)
    window = SlidingWindow(trained.crop_size, options.weighting, options.flips)
    subjects = _find_subjects(options, stored, data)
    name = options.model.resolve().name if options.model.is_dir() else options.model.stem
    with open_replacing_folder(output) as folder:
        scores, spent = _score(options, trained, window, device, subjects, folder)
        evaluation = Evaluation(name, trained.dataset, scores, {**_settings(options, trained, window), **spent})
        write_evaluation(folder, evaluation)
        save_evaluation_figures(folder / "figures", {name: evaluation}, {name: read_segmented(folder)})
    print(f"\nDice in per cent on {len(subjects)} {options.part} subjects, by the modalities given:\n")
    print(f"{markdown_table(scores)}\nEvaluation: {output}", flush=True)


def _differences(options: EvaluateArguments, stored: StoredNetwork) -> list[str]:
    """What sets the scores apart from those that a run computes at its end, in words for a folder's name."""
    own = None if stored.dataset is None else stored.dataset.name
    said = {
        options.part: options.part != "test",
        "best": options.model.is_dir() and options.weights == "best",
        str(options.dataset): options.dataset not in {None, own},
        "other-split": any(getattr(options, name) is not None for name in _SPLITTING),
        f"{options.max_subjects}-subjects": options.max_subjects is not None,
        f"crop{'x'.join(map(str, options.crop_size or ()))}": options.crop_size is not None,
        options.weighting: options.weighting != "uniform",
        "flips": options.flips,
        "no-hd95": not options.hd95,
    }
    return [word for word, holds in said.items() if holds]


def _find_subjects(options: EvaluateArguments, stored: StoredNetwork, data: EvaluationData) -> list[PreparedSubject]:
    raw = find_part(data, options.part)
    raw = dataclasses.replace(raw, subjects=raw.subjects[: options.max_subjects])
    if options.part != "train":
        refuse_training_subjects(stored, [subject.name for subject in raw.subjects])
    return prepare_part(data, raw)


def _score(
    options: EvaluateArguments,
    trained: TrainedNetwork,
    window: SlidingWindow,
    device: torch.device,
    subjects: Sequence[PreparedSubject],
    folder: Path,
) -> tuple[SubsetScores, dict[str, float]]:
    """The scores, and the time and memory that they took; the first subjects go to the folder."""
    viewed = {subject.name for subject in subjects[: options.view_subjects]}

    def keep(subject: PreparedSubject, image: Tensor, truth: Tensor, predictions: Tensor) -> None:
        if subject.name in viewed:
            write_segmented(folder, subject, image, truth, predictions)

    began = time.monotonic()
    with show_progress("evaluating") as meter:
        try:
            scores = evaluate_subsets(
                trained.network,
                subjects,
                trained.dataset,
                window,
                device,
                meter,
                measures=MEASURES if options.hd95 else tuple(name for name in MEASURES if name != _HD95),
                keep=keep,
            )
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"--device: the memory of {device} is full, --device cpu takes more time instead"
            ) from error
    return scores, {"seconds": time.monotonic() - began, "peak_memory_mb": peak_memory_bytes(device) / 1e6}


def _settings(options: EvaluateArguments, trained: TrainedNetwork, window: SlidingWindow) -> dict[str, Any]:
    return {
        "network": trained.network_name,
        "weights": options.weights if options.model.is_dir() else options.model.name,
        "part": options.part,
        "crop_size": list(window.crop_size),
        "weighting": window.weighting,
        "flips": window.flips,
    }
