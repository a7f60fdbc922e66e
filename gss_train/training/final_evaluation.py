"""The end of a run: its network is scored on the held-out subjects, and the run is marked as finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gss_train.common import show_progress
from gss_train.data import PreparedSubject
from gss_train.evaluation import (
    MEASURES,
    Evaluation,
    SubsetScores,
    dice_csv,
    evaluate_subsets,
    read_subject,
    summary_markdown,
    write_evaluation,
    write_segmented,
)
from gss_train.inference import SlidingWindow, segment_subsets
from gss_train.models import SegmentationNetwork
from gss_train.runs import RunFolder, read_records
from gss_train.training.plan import TrainingPlan

# Enough to look at, without a copy of the data set.
_VIEWED_SUBJECTS = 4


def finish(
    plan: TrainingPlan,
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    split_settings: Mapping[str, Any],
    folder: RunFolder | None,
) -> None:
    """Score the network as `--final-evaluation` says, and mark the run as finished.

    Args:
        plan: of the run.
        network: with the weights that count.
        subjects: held out, the same in all processes.
        split_settings: of the split that they are a part of; see `gss_train.evaluation.split_settings`.
        folder: of the run, in the process that writes; None in the others.
    """
    if plan.config.record.final_evaluation == "none":
        if folder is not None:
            _mark_finished(folder, _not_evaluated(folder))
        return
    window = SlidingWindow(plan.config.data.crop)
    scores = _evaluate(plan, network.eval(), subjects, window, folder)
    if folder is None:
        return
    settings = {**_evaluation_settings(plan, window), **split_settings}
    evaluation = Evaluation(folder.path.name, plan.dataset, scores, settings)
    write_evaluation(folder.evaluation, evaluation)
    folder.write_text("subsets.csv", dice_csv(scores))
    folder.log_metrics(
        {
            "kind": "test",
            "dice_all_modalities": dict(zip(scores.names, scores.mean[-1].tolist(), strict=True)),
            "dice_mean_over_subsets": dict(zip(scores.names, scores.overall.tolist(), strict=True)),
        }
    )
    _draw_summary(plan, network, subjects[0].padded_to(window.crop_size), window, folder)
    print(f"\nDice in per cent on {len(subjects)} held-out subjects, by the modalities given:")
    _mark_finished(folder, summary_markdown(evaluation))


def _evaluate(
    plan: TrainingPlan,
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    window: SlidingWindow,
    folder: RunFolder | None,
) -> SubsetScores:
    # Of those that the first process segments.
    viewed = {subject.name for subject in subjects[:: plan.processes.size][:_VIEWED_SUBJECTS]}

    def keep(subject: PreparedSubject, image: Tensor, truth: Tensor, predictions: Tensor) -> None:
        if folder is not None and subject.name in viewed:
            write_segmented(folder.evaluation, subject, image, truth, predictions)

    with show_progress("evaluating", quiet=folder is None) as meter, plan.computation.autocast():
        return evaluate_subsets(
            network,
            subjects,
            plan.dataset,
            window,
            plan.device,
            meter,
            processes=plan.processes,
            measures=("dice",) if plan.config.record.final_evaluation == "dice" else MEASURES,
            keep=keep,
        )


def _evaluation_settings(plan: TrainingPlan, window: SlidingWindow) -> dict[str, object]:
    """Without clocks, so that a run that was interrupted leaves what one leaves that was not."""
    return {
        "network": plan.config.network.network,
        "weights": "last",
        "part": "test",
        "crop_size": list(window.crop_size),
        "spacing": None if plan.config.data.voxel_size is None else list(plan.config.data.voxel_size),
        "weighting": window.weighting,
        "flips": window.flips,
        "precision": plan.computation.precision,
    }


def _draw_summary(
    plan: TrainingPlan, network: SegmentationNetwork, subject: PreparedSubject, window: SlidingWindow, folder: RunFolder
) -> None:
    records = read_records(folder.metrics)
    image, truth = read_subject(subject)
    with plan.computation.autocast():
        prediction = segment_subsets(network, image.to(plan.device), window, [subject.available])[0].cpu()
    plan.drawing.summary(
        folder.summary, subject, image, truth, prediction, plan.dataset, records.epochs, records.validations
    )


def _not_evaluated(folder: RunFolder) -> str:
    return f"Not evaluated (--final-evaluation none). To score it: python -m gss_train.evaluate {folder.path}\n"


def _mark_finished(folder: RunFolder, text: str) -> None:
    """Last: who finds the text takes the run for finished."""
    folder.write_text("subsets.md", text)
    print(f"\n{text}\nRun folder: {folder.path}", flush=True)
