"""Command line: `python -m gss_train.predict --model RUN --flair F --t1ce F --t1 F --t2 F --output FILE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Doors, which open when a name is asked for: neither `--help` nor a message about a missing file waits for torch.
from gss_train import common, inference, runs
from gss_train.common import Triple, UserError, run_command, to_triple
from gss_train.config import ComputedPrecision, DatasetName
from gss_train.data import (
    DATASETS,
    MODALITIES,
    Dataset,
    Spacing,
    Subject,
    check_volume_file,
    find_subjects,
    recognise_dataset,
    to_spacing,
)


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
        spacing: voxel size in mm that the scans are brought to, one number or three; by default as trained. With it, or
            with a network that was trained with it, scans may be on different grids, and are where their affines place
            them.
        precision: that the networks compute in; by default each in that of its training, or in float32 where that is
            not known. Probabilities are float32.
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
    weights: Literal["last", "best"] = "last"
    crop_size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    precision: ComputedPrecision | None = None
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
        if self.crop_size is not None and (len(self.crop_size) not in {1, 3} or not min(self.crop_size) > 0):
            raise ValueError(f"--crop-size: got {self.crop_size}, need one positive number or three")
        if self.spacing is not None:
            try:
                to_spacing(self.spacing)
            except ValueError as error:
                raise ValueError(f"--spacing: {error}") from None

    @property
    def scans(self) -> dict[str, Path]:
        """The single scans, by modality."""
        given = dict(zip(MODALITIES, (self.flair, self.t1ce, self.t1, self.t2), strict=True))
        return {modality: path for modality, path in given.items() if path is not None}


@dataclass(frozen=True)
class Plan:
    """What a call does; all is checked that can be told before a network is loaded.

    Attributes:
        models: files or folders of the networks.
        weights: of a run folder.
        dataset: that public networks were trained on.
        crop_size: voxels of the sliding window; None as trained.
        spacing: voxel size in mm that the networks see; None as trained.
        weighting: of a window's probabilities.
        flips: whether to average over the eight ways to flip the axes.
        precision: that the networks compute in; None each as trained.
        device: to compute on.
        subjects: each with the files of its prediction.
        output_folder: where these lie; None for single scans.
        export: the file of the network, where it is to be exported.
    """

    models: tuple[Path, ...]
    weights: Literal["last", "best"]
    dataset: Dataset | None
    crop_size: Triple | None
    spacing: Spacing | None
    weighting: Literal["uniform", "gaussian"]
    flips: bool
    precision: ComputedPrecision | None
    device: str
    subjects: tuple[tuple[Subject, inference.Outputs], ...]
    output_folder: Path | None
    export: Path | None


def plan(options: PredictArguments) -> Plan:
    """Find the scans, and look whether all can be read and written.

    Raises:
        UserError: a file or folder is missing, in the way, or none that can be used.
    """
    dataset = None if options.dataset is None else DATASETS[options.dataset]
    subjects = _find(options, dataset)
    for subject, outputs in subjects:
        files = [*subject.images.values(), *([] if subject.label is None else [subject.label])]
        outputs.check(files, overwrite=options.overwrite)
    for path in options.scans.values():
        check_volume_file(path)
    for path in options.model:
        if not path.exists():
            raise UserError(f"--model: {path} is missing, need a file or folder of those that --help lists")
    if options.export is not None and options.export.exists() and not options.overwrite:
        raise UserError(f"{options.export}: is there already; --overwrite replaces it")
    return Plan(
        models=options.model,
        weights=options.weights,
        dataset=dataset,
        crop_size=None if options.crop_size is None else to_triple(options.crop_size),
        spacing=None if options.spacing is None else to_spacing(options.spacing),
        weighting=options.weighting,
        flips=options.flips,
        precision=options.precision,
        # Exporting computes nothing, and there may be no other device.
        device=options.device if options.export is None else "cpu",
        subjects=tuple(subjects),
        output_folder=None if options.folder is None else options.output,
        export=options.export,
    )


def _find(options: PredictArguments, dataset: Dataset | None) -> list[tuple[Subject, inference.Outputs]]:
    """The subjects to predict, each with the files of its prediction."""
    output = options.output
    if output is None:
        return []
    if options.folder is None:
        subject = Subject(output.name.partition(".")[0], None, options.scans, None)
        return [(subject, inference.Outputs.at(output, with_probabilities=options.probabilities))]
    edition = dataset or recognise_dataset(options.folder)[0]
    subjects = find_subjects(options.folder, edition, require_labels=False)
    count = f"{len(subjects)} subject{'s' * (len(subjects) != 1)}"
    print(f"{count} of {edition.title} found in {options.folder}", flush=True)
    label_maps = [output / f"{subject.name}{_ending(subject)}" for subject in subjects]
    outputs = [inference.Outputs.at(path, with_probabilities=options.probabilities) for path in label_maps]
    return list(zip(subjects, outputs, strict=True))


def _ending(subject: Subject) -> str:
    return ".mha" if next(iter(subject.images.values())).suffix == ".mha" else ".nii.gz"


def carry_out(plan: Plan) -> bool:
    """Load the networks, and predict with them or export the one.

    Returns:
        Whether all subjects were predicted.

    Raises:
        UserError: a network cannot be used, or single scans cannot; nothing is then written.
        OSError: a file cannot be written.
    """
    device = common.pick_device(plan.device)
    networks = [
        runs.load_trained(path, device, weights=plan.weights, dataset=plan.dataset, crop_size=plan.crop_size)
        for path in plan.models
    ]
    described = [f"{n.network_name} of {n.origin}, trained on {n.dataset.title}" for n in networks]
    if plan.export is not None:
        runs.export_network(networks[0], plan.export)
        print(f"Exported {described[0]} to {plan.export}", flush=True)
        return True
    ensemble = inference.Ensemble.of(networks, plan.spacing)
    one_grid = plan.spacing is None and all(network.spacing is None for network in networks)
    predictor = inference.Predictor(ensemble, device, plan.weighting, plan.flips, one_grid, plan.precision)
    for line, asked in zip(described, predictor.asked_precisions, strict=True):
        print(f"Network: {line}, computes in {inference.describe_precision(asked, device)}", flush=True)
    if plan.output_folder is not None:
        return predictor.predict_all(plan.subjects, plan.output_folder)
    ((subject, outputs),) = plan.subjects
    # Before the progress bar, which catches what goes to standard error.
    scans = predictor.read(subject)
    with common.show_progress("segmenting") as meter:
        predictor.predict(scans, outputs, meter)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, with warnings too; 2 after an error that the user can mend, such as faults in a scan, or where subjects of a
        folder could not be predicted; 130 if interrupted.
    """

    def predict() -> bool:
        import tyro  # noqa: PLC0415  (where it is missing, the command says so)

        return carry_out(plan(tyro.cli(PredictArguments, args=arguments, prog="python -m gss_train.predict")))

    return run_command(predict, interrupted="interrupted; what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
