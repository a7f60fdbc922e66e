"""The work of `python -m gss_train.predict`: scans in, label maps out, one by one or by the folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
import tyro

from gss_train.common import Triple, UserError, pick_device, show_progress
from gss_train.config import DatasetName
from gss_train.data import DATASETS, MODALITIES, Dataset, Subject, find_subjects, recognise_dataset
from gss_train.inference.ensemble import Ensemble
from gss_train.inference.log import describe, region_millilitres
from gss_train.inference.outputs import Outputs, to_label_values
from gss_train.inference.prediction import segment
from gss_train.inference.resampling import is_resampling_needed, millimetres
from gss_train.inference.scans import RawScans, read_scans
from gss_train.runs import TrainedNetwork, WeightsName, export_network, load_trained

_Progress = Callable[[int, int], None]
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class PredictArguments:
    """Segment raw scans with trained networks: of one subject, or of all subjects of a folder.

    The label map lies on the scans' own grid. A file `<its name>.json` beside it says what its values mean, which scans
    were missing, and what is doubtful. Scans have to be skull-stripped and co-registered.

    Attributes:
        model: a run folder, one of its checkpoints, an exported network, or a checkpoint that the authors of RFNet, GSS
            or mmFormer publish; of several, the probabilities are averaged.
        flair: a scan, `.nii.gz`, `.nii` or `.mha`; here and below, leave out what there is not.
        t1ce: T1 with contrast agent.
        t1: T1 without it.
        t2: T2.
        folder: a raw data set in place of single scans, in the layout of any BraTS edition, with labels or without.
        output: the label map, or with `--folder` the folder of the label maps, `<subject>.nii.gz` or, of MetaImages,
            `<subject>.mha`.
        probabilities: write those of all categories too, one file of four dimensions.
        overwrite: replace files that are there already.
        weighting: of a window's probabilities: `uniform` as published, or `gaussian`, by which its middle counts more.
        flips: average over the eight ways to flip the axes, which takes eight times as long.
        dataset: the BraTS edition that a public checkpoint of four categories was trained on, if it is to be another
            than it says; and the layout in `--folder`, where there are several.
        weights: of a run folder: those after its last step, or those of its best validation.
        crop_size: voxels of the sliding window, one number or three; by default as trained. mmFormer takes no other.
        spacing: voxel size in mm that the scans are brought to, one number or three; by default that of the training's
            data set where it states one, else 1.
        export: write the network as one file that stands alone, and predict nothing.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
    """

    model: tuple[Path, ...]
    flair: Path | None = None
    t1ce: Path | None = None
    t1: Path | None = None
    t2: Path | None = None
    folder: Path | None = None
    output: Path | None = None
    probabilities: bool = False
    overwrite: bool = False
    weighting: Literal["uniform", "gaussian"] = "uniform"
    flips: bool = False
    dataset: DatasetName | None = None
    weights: WeightsName = "last"
    crop_size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    export: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("--model: is missing, need a trained network")
        tasks = [bool(self.scans), self.folder is not None, self.export is not None]
        if sum(tasks) != 1:
            raise ValueError("need either scans (--flair, --t1ce, --t1, --t2), or --folder, or --export")
        if self.export is not None and len(self.model) > 1:
            raise ValueError(f"--export: got {len(self.model)} networks, need one --model")
        if (self.output is None) != (self.export is not None):
            raise ValueError("--output: is missing" if self.output is None else "--output: cannot go with --export")
        if self.dataset is not None and self.dataset not in DATASETS:
            raise ValueError(f"--dataset: got {self.dataset!r}, need one of {', '.join(DATASETS)}")
        for name, numbers in (("--crop-size", self.crop_size), ("--spacing", self.spacing)):
            if numbers is not None and (len(numbers) not in {1, 3} or not min(numbers) > 0):
                raise ValueError(f"{name}: got {numbers}, need one positive number or three")

    @property
    def scans(self) -> dict[str, Path]:
        """The single scans, by modality."""
        given = dict(zip(MODALITIES, (self.flair, self.t1ce, self.t1, self.t2), strict=True))
        return {modality: path for modality, path in given.items() if path is not None}

    @property
    def edition(self) -> Dataset | None:
        """That of `dataset`."""
        return None if self.dataset is None else DATASETS[self.dataset]


def parse_arguments(arguments: list[str] | None = None) -> PredictArguments:
    """Read the command line.

    Raises:
        SystemExit: a flag that is unknown, unreadable or out of range, or `--help`.
    """
    return tyro.cli(PredictArguments, args=arguments, prog="python -m gss_train.predict")


def run(options: PredictArguments) -> bool:
    """Predict one subject or a folder, or export a network.

    Returns:
        Whether all subjects were predicted.

    Raises:
        UserError: a network, a scan or an output cannot be used; nothing is then written.
        OSError: a file cannot be written.
    """
    if options.export is not None:
        return _export(options, options.export)
    assert options.output is not None
    if options.folder is not None:
        return _predict_folder(options, options.folder, options.output)
    files = options.scans
    name = options.output.name.partition(".")[0]
    subject = Subject(name, None, files, None)
    outputs = Outputs(options.output, options.probabilities)
    outputs.check(files.values(), overwrite=options.overwrite)
    device = pick_device(options.device)
    predictor = Predictor(options, _load(options, device), device)
    # Before the progress bar, which catches what goes to standard error.
    scans = predictor.read(subject)
    with show_progress("segmenting") as meter:
        predictor.predict(scans, outputs, meter)
    return True


@dataclass(frozen=True)
class Predictor:
    """Predicts one subject after the other.

    Attributes:
        options: for the sliding window.
        ensemble: the networks.
        device: that they are on.
    """

    options: PredictArguments
    ensemble: Ensemble
    device: torch.device

    def read(self, subject: Subject) -> RawScans:
        """Read scans, and warn of what is doubtful about them.

        Raises:
            UserError: they cannot be used.
        """
        scans = read_scans(subject, self.ensemble.dataset)
        for warning in scans.warnings:
            print(f"WARNING: {warning}", file=sys.stderr, flush=True)
        for note in self._notes(scans):
            print(f"{scans.name}: {note}", flush=True)
        return scans

    def predict(self, scans: RawScans, outputs: Outputs, progress: _Progress) -> None:
        """Segment scans, and write what comes of it.

        Raises:
            UserError: they cannot be resampled; nothing is written.
            OSError: a file cannot be written; none of them is there.
        """
        started = time.monotonic()
        options, dataset = self.options, self.ensemble.dataset
        prediction = segment(
            self.ensemble, scans, self.device, progress, weighting=options.weighting, flips=options.flips
        )
        categories = prediction.categories()
        volumes = region_millilitres(categories, dataset, scans.grid)
        settings = {
            "weighting": options.weighting,
            "flips": options.flips,
            "device": str(self.device),
            "seconds": round(time.monotonic() - started, 1),
        }
        log = describe(prediction, self.ensemble, outputs, volumes, self._notes(scans), settings)
        outputs.write(prediction, to_label_values(categories, dataset.label_values), log)
        shown = ", ".join(f"{region} {volume:.1f} ml" for region, volume in volumes.items())
        print(f"{outputs.label_map}: {shown}", flush=True)

    def _notes(self, scans: RawScans) -> list[str]:
        notes = []
        if scans.missing:
            notes.append(f"{', '.join(scans.missing)} missing, segmented from {', '.join(scans.files)} alone")
        spacing = self.ensemble.spacing
        if is_resampling_needed(scans.spacing, spacing):
            sizes = f"{millimetres(scans.spacing)}, resampled to {millimetres(spacing)}"
            notes.append(f"scans of {sizes}, and the probabilities back")
        seen = [str(m.origin) for m in self.ensemble.members if scans.name in m.training_subjects]
        if seen:
            notes.append(f"trained on this subject: {', '.join(seen)}; the label map is no sample of new patients'")
        return notes


def _predict_folder(options: PredictArguments, folder: Path, output: Path) -> bool:
    edition = options.edition or recognise_dataset(folder)[0]
    subjects = find_subjects(folder, edition, require_labels=False)
    print(f"{_count(len(subjects), 'subject')} of {edition.title} found in {folder}", flush=True)
    outputs = {s.name: Outputs(output / f"{s.name}{_ending(s)}", options.probabilities) for s in subjects}
    for subject in subjects:
        outputs[subject.name].check(_files(subject), overwrite=options.overwrite)
    device = pick_device(options.device)
    predictor = Predictor(options, _load(options, device), device)
    bad = []
    with show_progress("predicting") as meter:
        meter(0, len(subjects))
        for done, subject in enumerate(subjects):

            def progress(window: int, windows: int, done: int = done, name: str = subject.name) -> None:
                meter(done, len(subjects), f"{name}: window {window} of {windows}")

            try:
                predictor.predict(predictor.read(subject), outputs[subject.name], progress)
            except UserError as error:
                bad.append(subject.name)
                print(f"error: {subject.name} left out: {error}", file=sys.stderr, flush=True)
            meter(done + 1, len(subjects))
    print(f"Predicted {len(subjects) - len(bad)} of {_count(len(subjects), 'subject')} in {output}", flush=True)
    if bad:
        print(f"error: {_count(len(bad), 'subject')} not predicted: {', '.join(bad)}", file=sys.stderr, flush=True)
    return not bad


def _export(options: PredictArguments, path: Path) -> bool:
    if path.exists() and not options.overwrite:
        raise UserError(f"{path}: is there already; --overwrite replaces it")
    # On the CPU: there may be no other device, and nothing is computed.
    (trained,) = _load_members(options, torch.device("cpu"))
    export_network(trained, path)
    print(f"Exported {_described(trained)} to {path}", flush=True)
    return True


def _load(options: PredictArguments, device: torch.device) -> Ensemble:
    members = _load_members(options, device)
    ensemble = Ensemble.of(members, None if options.spacing is None else _triple(options.spacing))
    for member in members:
        print(f"Network: {_described(member)}", flush=True)
    return ensemble


def _load_members(options: PredictArguments, device: torch.device) -> list[TrainedNetwork]:
    crop: Triple | None = None if options.crop_size is None else _triple(options.crop_size)
    return [
        load_trained(path, device, weights=options.weights, dataset=options.edition, crop_size=crop)
        for path in options.model
    ]


def _described(trained: TrainedNetwork) -> str:
    return f"{trained.network_name} of {trained.origin}, trained on {trained.dataset.title}"


def _files(subject: Subject) -> list[Path]:
    return [*subject.images.values(), *([] if subject.label is None else [subject.label])]


def _ending(subject: Subject) -> str:
    return ".mha" if next(iter(subject.images.values())).suffix == ".mha" else ".nii.gz"


def _triple(numbers: tuple[_Number, ...]) -> tuple[_Number, _Number, _Number]:
    x, y, z = numbers * 3 if len(numbers) == 1 else numbers
    return x, y, z


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
