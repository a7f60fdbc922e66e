"""A whole run: prepare, train, evaluate, report."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss_train.common import Processes, UserError, join_processes, pick_device, show_progress
from gss_train.config import Config, refuse_changes
from gss_train.data import Preparation, PreparedSubject, Split
from gss_train.evaluation import (
    MEASURES,
    Evaluation,
    csv_table,
    evaluate_subsets,
    markdown_table,
    read_subject,
    write_evaluation,
    write_segmented,
)
from gss_train.inference import SlidingWindow, segment_subsets
from gss_train.models import SegmentationNetwork
from gss_train.runs import RunFolder, check_output, describe_environment, old_config, read_records
from gss_train.subjects import Source, find_source, prepare, resolve_dataset
from gss_train.training.drawing import Drawing
from gss_train.training.memory import full_memory_explained
from gss_train.training.run import TrainingRun, build

# Enough to look at, without a copy of the data set.
_VIEWED_SUBJECTS = 4


def run_training(config: Config, drawing: Drawing) -> None:
    """Train, evaluate and leave a run folder; or go on with the run in the folder, from where it was stopped.

    In several processes, as `torchrun` starts them, all of them train and evaluate; the first one alone writes and
    speaks.

    Raises:
        UserError: a setting, a file or the data cannot be used; the message names it.
        OSError: the disk is full, or a folder cannot be written.
        ModuleNotFoundError: an optional package is needed and not installed.
        Interrupted: a signal came while it trained; the run is saved and can go on.
    """
    device_type = _device_type(config.run.device)
    with join_processes(device_type) as processes, _alone_speaking(processes):
        device = _pick_device(config.run.device, device_type, processes)
        config, dataset = resolve_dataset(config)
        output = config.run.output or _default_output(config)
        resume = config.record.resume == "auto"
        check_output(output, resume=resume)
        _refuse_other_settings(config, output)
        training = TrainingRun(config, dataset, device, processes, build(config, dataset, device), output, drawing)
        training.announce()
        source, preparation = _prepare_in_turn(training)
        with _open_folder(output, training, source, preparation) as folder:
            if processes.any(folder is not None and folder.is_finished):
                print(f"This run is finished already:\n\n{(output / 'subsets.md').read_text(encoding='utf-8')}")
                return
            subjects = {subject.name: subject for subject in preparation.subjects}
            train, validation, test = (
                [subjects[name] for name in names if name in subjects]
                for names in (source.split.train, source.validation, source.split.test)
            )
            with full_memory_explained(training.size):
                network = training.train(train, validation, folder)
                _evaluate(training, network, test, folder)


def _device_type(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name.partition(":")[0]


def _pick_device(name: str, device_type: str, processes: Processes) -> torch.device:
    if processes.group is None:
        return pick_device(name)
    if ":" in name:
        raise UserError(f"--device: got {name!r} below torchrun, need {device_type!r}: each process takes its own")
    return pick_device(f"cuda:{processes.local_rank}" if device_type == "cuda" else device_type)


@contextmanager
def _alone_speaking(processes: Processes) -> Iterator[None]:
    """Only the first process says what all of them do; errors are everybody's own."""
    if processes.is_first:
        yield
        return
    with redirect_stdout(io.StringIO()):
        yield


def _default_output(config: Config) -> Path:
    objective = "gss" if config.training.gss else "baseline"
    return Path("runs") / f"{config.data.dataset}-{config.network.network}-{objective}-{datetime.now():%Y%m%d-%H%M%S}"


def _prepare_in_turn(training: TrainingRun) -> tuple[Source, Preparation]:
    """The first process prepares; the others wait, and find it done."""
    if not training.processes.is_first:
        training.processes.barrier()
    source = find_source(training.config, training.dataset)
    training.refuse_leak(source.split.test)
    source, preparation = prepare(training.config, training.dataset, source)
    if training.processes.is_first:
        training.processes.barrier()
    return source, preparation


@contextmanager
def _open_folder(
    output: Path, training: TrainingRun, source: Source, preparation: Preparation
) -> Iterator[RunFolder | None]:
    """The run folder, in the first process, with all that is known before the training."""
    if not training.processes.is_first:
        training.processes.barrier()
        yield None
        return
    with RunFolder.open(output, resume=training.config.record.resume == "auto") as folder:
        _refuse_other_settings(training.config, output)
        if folder.old_config is not None:
            _refuse_other_split(folder, source.split)
        folder.write_json("environment.json", describe_environment(training.device))
        folder.write_json("dataset.json", training.dataset.to_json())
        folder.write_json("split.json", vars(source.split))
        if preparation.left_out:
            folder.write_json("left_out.json", [fault.to_json() for fault in preparation.left_out])
        # Last: a folder that has it can be gone on with.
        folder.write_json("config.json", training.config.to_json())
        training.processes.barrier()
        yield folder


def _refuse_other_settings(config: Config, output: Path) -> None:
    before = old_config(output)
    if before is not None:
        refuse_changes(before, config.to_json(), output / "config.json")


def _refuse_other_split(folder: RunFolder, split: Split) -> None:
    before = folder.read_json("split.json")
    now = {part: list(names) for part, names in vars(split).items()}
    different = [part for part in now if before.get(part) != now[part]]
    if different:
        raise UserError(
            f"--data-root: the {', '.join(different)} subjects are not those of the run in {folder.path}, as its "
            "split.json has them; give it the same data, or another --output"
        )


def _evaluate(
    training: TrainingRun, network: SegmentationNetwork, subjects: Sequence[PreparedSubject], folder: RunFolder | None
) -> None:
    network.eval()
    window, dataset = SlidingWindow(training.config.data.crop), training.dataset
    # Of those that the first process segments.
    viewed = {subject.name for subject in subjects[:: training.processes.size][:_VIEWED_SUBJECTS]}

    def keep(subject: PreparedSubject, image: Tensor, truth: Tensor, predictions: Tensor) -> None:
        if folder is not None and subject.name in viewed:
            write_segmented(folder.evaluation, subject, image, truth, predictions)

    with show_progress("evaluating", quiet=folder is None) as meter:
        scores = evaluate_subsets(
            network,
            subjects,
            dataset,
            window,
            training.device,
            meter,
            processes=training.processes,
            measures=MEASURES,
            keep=keep,
        )
    if folder is None:
        return
    table = markdown_table(scores)
    write_evaluation(
        folder.evaluation, Evaluation(folder.path.name, dataset, scores, _evaluation_settings(training, window))
    )
    folder.write_text("subsets.csv", csv_table(scores))
    folder.log_metrics(
        {
            "kind": "test",
            "dice_all_modalities": _by_name(scores.names, scores.mean[-1]),
            "dice_mean_over_subsets": _by_name(scores.names, scores.overall),
        }
    )
    records = read_records(folder.metrics)
    image, truth = read_subject(subjects[0])
    prediction = segment_subsets(network, image.to(training.device), window, [subjects[0].available])[0].cpu()
    training.drawing.summary(
        folder.summary, subjects[0], image, truth, prediction, dataset, records.epochs, records.validations
    )
    # Last: it marks the run as finished.
    folder.write_text("subsets.md", table)
    print(f"\nDice in per cent on {len(subjects)} held-out subjects, by the modalities given:\n\n{table}")
    print(f"Run folder: {folder.path}", flush=True)


def _evaluation_settings(training: TrainingRun, window: SlidingWindow) -> dict[str, Any]:
    """Without clocks, so that a run that was interrupted leaves what one leaves that was not."""
    return {
        "network": training.config.network.network,
        "weights": "last",
        "part": "test",
        "crop_size": list(window.crop_size),
        "weighting": window.weighting,
        "flips": window.flips,
    }


def _by_name(names: Sequence[str], values: Tensor) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in zip(names, values.tolist(), strict=True)}
