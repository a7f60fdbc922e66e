"""The end of a run: its network is scored on the held-out subjects, and the run is marked as finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gss_train.data import PreparedSubject
from gss_train.evaluation import (
    MEASURES,
    Evaluation,
    Job,
    dice_csv,
    evaluate_job,
    read_subject,
    summary_markdown,
    weights_markdown,
)
from gss_train.inference import SlidingWindow, segment_subsets
from gss_train.models import SegmentationNetwork
from gss_train.runs import RunFolder, build_trained, read_different, read_records
from gss_train.training.plan import TrainingPlan

_EVALUATION = "evaluation"
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
    job = _job(plan, network.eval(), subjects, split_settings)
    with plan.computation.autocast():
        evaluation = evaluate_job(job, plan.output / _EVALUATION, processes=plan.processes)
        others = _evaluate_others(plan, job) if plan.config.record.final_weights == "all" else None
    if folder is None or evaluation is None:
        return
    if others is not None:
        folder.write_text("weights.md", weights_markdown({title: own or evaluation for title, own in others.items()}))
    scores = evaluation.scores
    folder.write_text("subsets.csv", dice_csv(scores))
    folder.log_metrics(
        {
            "kind": "test",
            "dice_all_modalities": dict(zip(scores.names, scores.mean[-1].tolist(), strict=True)),
            "dice_mean_over_subsets": dict(zip(scores.names, scores.overall.tolist(), strict=True)),
        }
    )
    _draw_summary(plan, network, subjects[0].padded_to(job.window.crop_size), job.window, folder)
    print(f"\nDice in per cent on {len(subjects)} held-out subjects, by the modalities given:")
    _mark_finished(folder, summary_markdown(evaluation))


def _job(
    plan: TrainingPlan,
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    split_settings: Mapping[str, Any],
) -> Job:
    """Without clocks, so that a run that was interrupted leaves what one leaves that was not."""
    window = SlidingWindow(plan.config.data.crop)
    settings = {
        "network": plan.config.network.network,
        "weights": "last",
        "part": "test",
        **split_settings,
        "crop_size": list(window.crop_size),
        "spacing": None if plan.config.data.voxel_size is None else list(plan.config.data.voxel_size),
        "weighting": window.weighting,
        "flips": window.flips,
        "precision": plan.computation.precision,
    }
    measures = ("dice",) if plan.config.record.final_evaluation == "dice" else tuple(MEASURES)
    return Job(
        plan.output.name, network, subjects, plan.dataset, window, plan.device, measures, settings, _VIEWED_SUBJECTS
    )


def _evaluate_others(plan: TrainingPlan, job: Job) -> dict[str, Evaluation | None]:
    """Score all weights of the run but the last, which have been scored and are None here; by their names."""
    found: dict[str, Evaluation | None] = {}
    for names, stored in read_different(plan.output):
        title, (name, *_) = ", ".join(names), names
        found[title] = None
        if name != "last":
            print(f"Evaluating {title}", flush=True)
            network = build_trained(stored, plan.device).network
            own = dataclasses.replace(job, network=network, settings={**job.settings, "weights": name})
            found[title] = evaluate_job(own, plan.output / f"{_EVALUATION}-{name}", processes=plan.processes)
    return found


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
