"""Command line: `python -m gss_train.evaluate RUN` scores a trained network from all subsets of the modalities."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

# Doors, which open when a name is asked for: `--help` waits for nothing that the work needs.
from gss_train import common, evaluation, inference, report, runs, subjects
from gss_train.common import UserError, run_command
from gss_train.config import BoxName, ComputedPrecision, DatasetName, SplitName
from gss_train.data import in_use, size_name, to_spacing

if TYPE_CHECKING:
    import torch

    from gss_train.data import PreparedSubject, Split

_SPLITTING = ("split", "split_file", "split_seed", "fold", "folds")
_DATA_OPTIONS = ("dataset", "data_root", "manifest", "categories", "spacing", "box", *_SPLITTING, "crop_size", "cache")


@dataclass(frozen=True)
class EvaluateArguments:
    """Score a trained network on whole subjects, from all 15 subsets of the modalities.

    A run folder, or a checkpoint in it, knows its data, its split and its settings: nothing else needs to be said. For
    other files say which scans to score.

    Attributes:
        model: a run folder, one of its checkpoints, an exported network, or a checkpoint that the authors of RFNet, GSS
            or mmFormer publish.
        weights: of a run folder: `last`, those after its last step; `best`, those of its best validation; those at the
            end of a stage, such as `baseline` or `gss-round-1`; or `all` of them, each in a folder of its own.
        part: of the split. Subjects that the network was trained on are scored with `train` only.
        max_subjects: score no more than so many; None for all.
        dataset: the BraTS edition of the scans; `auto` recognises the one below `--data-root`, `custom` is a data set
            of your own, listed by `--manifest`. By default that of the training.
        data_root: folder of the raw data set; by default that of the run.
        manifest: your own data, a CSV or JSON with `subject, flair, t1ce, t1, t2, seg` (see the README).
        categories: what the labels of your own data mean; by default `<manifest's stem>.dataset.json` beside it.
        spacing: voxel size in mm that scans are brought to, one number or three; by default the `--spacing` of the
            training, else that which they have. Scores are of the label's own voxels.
        box: that subjects are cut to, the `whole` brain or as `released` by authors; by default that of the training.
        split: a published split in place of the run's, or `auto` or `seeded`; as for training. By default that of
            the run, and `auto` for files of other origin.
        split_file: a split of your own in place of the run's; as for training.
        split_seed: of a split that is drawn in place of the run's, with whatever seed.
        fold: of a cross-validation in place of the run's split; as for training.
        folds: of the cross-validation.
        skip_bad: leave out the subjects whose scans have errors.
        cache: folder for prepared volumes; by default that of the run, or `runs/cache`.
        crop_size: voxels of the sliding window, one number or three; by default as trained. mmFormer takes no other.
        weighting: of a window's probabilities: `uniform` as published, or `gaussian`, by which its middle counts more.
        flips: average over the eight ways to flip the axes, which takes eight times as long.
        precision: that the network computes in; by default that of its training, or float32 where that is not known.
            Probabilities and scores are float32 or more.
        hd95: compute the 95th percentile of the Hausdorff distance too.
        workers: processes that compute HD95 where that takes long; by default one for each processor, at most 8.
        view_subjects: keep the scans and predictions of so many subjects, for the report's viewer and for figures.
        output: folder of the results. By default `evaluation` in the run folder, where the run has put its own, or a
            name that says what is different; for a file, beside it. With `--weights all` the folder that theirs go to,
            in place of that of the run.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
    """

    model: Path
    weights: str = "last"
    part: Literal["test", "validation", "train", "all"] = "test"
    max_subjects: int | None = None
    dataset: DatasetName | None = None
    data_root: Path | None = None
    manifest: Path | None = None
    categories: Path | None = None
    spacing: tuple[float, ...] | None = None
    box: BoxName | None = None
    split: SplitName | None = None
    split_file: Path | None = None
    split_seed: int | None = None
    fold: int | None = None
    folds: int | None = None
    skip_bad: bool = False
    cache: Path | None = None
    crop_size: tuple[int, ...] | None = None
    weighting: Literal["uniform", "gaussian"] = "uniform"
    flips: bool = False
    precision: ComputedPrecision | None = None
    hd95: bool = True
    workers: int | None = None
    view_subjects: int = 4
    output: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for flag, value in (("--max-subjects", self.max_subjects), ("--workers", self.workers)):
            if value is not None and value < 1:
                raise ValueError(f"{flag}: got {value}, need 1 or more")
        if self.view_subjects < 0:
            raise ValueError(f"--view-subjects: got {self.view_subjects}, need 0 or more")
        if self.crop_size is not None and (len(self.crop_size) not in {1, 3} or min(self.crop_size) < 1):
            raise ValueError(f"--crop-size: got {self.crop_size}, need one positive number or three")

    def stated_data(self) -> dict[str, Any]:
        """The options of `DataOptions` that were stated, by name."""
        stated = {name: getattr(self, name) for name in _DATA_OPTIONS if getattr(self, name) is not None}
        return {**stated, "skip_bad": True} if self.skip_bad else stated


@dataclass(frozen=True)
class PlannedNetwork:
    """A network that is to be scored.

    Attributes:
        title: which of the run's weights it has.
        trained: the network, on the CPU.
        precision: that it computes in.
        output: folder of the results.
        settings: how the scores come about, JSON values.
    """

    title: str
    trained: runs.TrainedNetwork
    precision: ComputedPrecision
    output: Path
    settings: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """An evaluation that can be carried out.

    Attributes:
        name: of what is evaluated.
        networks: one, or all of a run that differ.
        raw: the subjects to score, not yet prepared.
        skip_bad: whether to leave out those whose scans have errors.
        window: that slides over each of them.
        device: to compute on.
        measures: by name, of `gss_train.evaluation.MEASURES`.
        viewed: how many subjects are kept to look at.
        workers: processes that may be started to compute HD95; None: as many as there are processors, at most 8.
        table: file that compares the networks; None where there is one alone.
    """

    name: str
    networks: tuple[PlannedNetwork, ...]
    raw: subjects.RawData
    skip_bad: bool
    window: inference.SlidingWindow
    device: torch.device
    measures: tuple[str, ...]
    viewed: int
    workers: int | None
    table: Path | None


def plan(options: EvaluateArguments) -> Plan:
    """Find the networks and the subjects, and check whatever can be wrong with them.

    Raises:
        UserError: a network, the scans or a folder cannot be used.
        ModuleNotFoundError: an optional package is needed and not installed.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun: an evaluation is one process; start it with python")
    stated = options.stated_data()
    device = common.pick_device(options.device)
    takes_all = options.weights == "all" and options.model.is_dir()
    found = list(runs.read_different(options.model)) if takes_all else _read_one(options)
    (_, first), *_ = found
    words = _differences(options, first, device)
    outputs = [_output(options, names[0], _differences(options, stored, device)) for names, stored in found]
    for output in outputs:
        evaluation.refuse_taken(output)
    data = evaluation.choose_data(first, stated)
    crop_size = None if options.crop_size is None else data.config.data.crop
    on = common.pick_device("cpu")
    built = [runs.build_trained(stored, on, dataset=data.dataset, crop_size=crop_size) for _, stored in found]
    part, split = evaluation.find_part(data, options.part)
    raw = part.only(part.names[: options.max_subjects])
    if options.part != "train":
        for _, stored in found:
            evaluation.refuse_training_subjects(stored, raw.names)
    titles = [", ".join(names) for names, _ in found]
    networks = [
        _plan_network(options, title, trained, output, raw, split, device)
        for title, trained, output in zip(titles, built, outputs, strict=True)
    ]
    is_run = options.model.is_dir()
    return Plan(
        name=options.model.resolve().name if is_run else options.model.stem,
        networks=tuple(networks),
        raw=raw,
        skip_bad=data.config.data.skip_bad,
        window=inference.SlidingWindow(built[0].crop_size, options.weighting, options.flips),
        device=device,
        measures=tuple(name for name in evaluation.MEASURES if options.hd95 or name != "hd95_mm"),
        viewed=options.view_subjects,
        workers=options.workers,
        table=(options.output or options.model) / f"{'-'.join(['weights', *words])}.md" if takes_all else None,
    )


def _read_one(options: EvaluateArguments) -> list[tuple[list[str], runs.StoredNetwork]]:
    name = options.weights if options.model.is_dir() else options.model.name
    return [([name], runs.read_stored(options.model, options.weights))]


def _plan_network(
    options: EvaluateArguments,
    title: str,
    trained: runs.TrainedNetwork,
    output: Path,
    raw: subjects.RawData,
    split: Split | None,
    device: torch.device,
) -> PlannedNetwork:
    asked = options.precision or trained.precision or "float32"
    precision = inference.pick_precision(asked, device)
    which = f"{title}: computes" if options.weights == "all" else "Computes"
    print(f"{which} in {inference.describe_precision(asked, device)} on {device}", flush=True)
    settings = {
        "network": trained.network_name,
        "weights": title.partition(",")[0],
        "part": options.part,
        **evaluation.split_settings(
            trained.dataset, split, trained.training_subjects, is_stated=options.split is not None
        ),
        "crop_size": list(trained.crop_size),
        "spacing": None if raw.spacing is None else list(raw.spacing),
        "weighting": options.weighting,
        "flips": options.flips,
        "precision": precision,
    }
    return PlannedNetwork(title, trained, precision, output, settings)


def _output(options: EvaluateArguments, weights: str, words: list[str]) -> Path:
    """With the network, named by what sets the scores apart from those that a run computes at its end."""
    if options.output is not None and options.weights != "all":
        return options.output
    is_run = options.model.is_dir()
    name = "-".join(["evaluation", *words, *([weights] if is_run and weights != "last" else [])])
    if is_run:
        return (options.output or options.model) / name
    return options.output or options.model.with_name(f"{options.model.stem}-{name}")


def _differences(options: EvaluateArguments, stored: runs.StoredNetwork, device: torch.device) -> list[str]:
    """What sets the scores apart from those that a run computes at its end, but for the weights."""
    trained_on = None if stored.dataset is None else stored.dataset.name
    trained_in = stored.precision or "float32"
    precision = inference.pick_precision(options.precision or trained_in, device)
    different = {
        # At its end the run itself needs the name without it.
        "unfinished": options.model.is_dir() and runs.run_status(options.model) != "finished",
        options.part: options.part != "test",
        str(options.dataset): options.dataset not in {None, trained_on},
        "other-split": any(getattr(options, name) is not None for name in _SPLITTING),
        f"{options.max_subjects}-subjects": options.max_subjects is not None,
        size_name(to_spacing(options.spacing or 1)): options.spacing is not None,
        f"{options.box}-box": options.box is not None,
        f"crop{common.times(options.crop_size or ())}": options.crop_size is not None,
        options.weighting: options.weighting != "uniform",
        "flips": options.flips,
        precision: precision != trained_in,
        "no-hd95": not options.hd95,
    }
    return [word for word, holds in different.items() if holds]


def carry_out(plan: Plan) -> None:
    """Score the networks, and write each evaluation's folder once all of it is there.

    Raises:
        UserError: the raw scans cannot be used, or the memory is too small.
        Interrupted: a signal came; what is scored is kept.
        OSError: a file cannot be written.
        ModuleNotFoundError: an optional package is needed and not installed.
    """
    # First, so that a missing package is not found out after hours of work.
    draw = report.save_evaluation_figures
    preparation = subjects.prepare_subjects(plan.raw, skip_bad=plan.skip_bad)
    prepared, left_out = preparation.subjects, preparation.names_left_out
    if left_out:
        print(f"--skip-bad: {len(left_out)} subjects left out: {', '.join(left_out)}", flush=True)
    found = {}
    for network in plan.networks:
        own = found[network.title] = _score(plan, network, prepared, draw)
        print(f"\nDice in per cent on {len(prepared)} {network.settings['part']} subjects, by the modalities given:\n")
        print(f"{evaluation.summary_markdown(own)}\nEvaluation: {network.output}", flush=True)
    if plan.table is not None:
        text = evaluation.weights_markdown(found)
        with common.open_replacing(plan.table) as file:
            file.write(text.encode())
        print(f"\n{text}\nWeights: {plan.table}", flush=True)


def _score(
    plan: Plan, network: PlannedNetwork, prepared: Sequence[PreparedSubject], draw: Callable[..., object]
) -> evaluation.Evaluation:
    import torch  # noqa: PLC0415  (late, as the doors open)

    job = evaluation.Job(
        plan.name,
        network.trained.network.to(plan.device),
        prepared,
        network.trained.dataset,
        plan.window,
        plan.device,
        plan.measures,
        network.settings,
        plan.viewed,
        plan.workers,
        timed=True,
    )

    def draw_figures(folder: Path, own: evaluation.Evaluation, seen: list[evaluation.SegmentedSubject]) -> None:
        draw(folder, {plan.name: own}, {plan.name: seen})

    try:
        with inference.computing(network.precision, plan.device):
            own = evaluation.evaluate_job(job, network.output, draw=draw_figures)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--device: the memory of {plan.device} is full, --device cpu takes more time instead"
        ) from error
    # The next one may need its memory.
    network.trained.network.cpu()
    assert own is not None
    return own


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 143 if SIGTERM and 130 if
        SIGINT ended it. The same command goes on with what is scored.
    """

    def evaluate() -> None:
        import tyro  # noqa: PLC0415  (where it is missing, the command says so)

        positional = (tyro.conf.PositionalRequiredArgs,)
        options = tyro.cli(EvaluateArguments, args=arguments, prog="python -m gss_train.evaluate", config=positional)
        planned = plan(options)
        with in_use(planned.raw.prepared_folder):
            carry_out(planned)

    return run_command(evaluate, extras="train,demo", interrupted="interrupted; what is scored is kept")


if __name__ == "__main__":
    sys.exit(main())
