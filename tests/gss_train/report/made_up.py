"""Run folders with made-up scores and subjects, as finished runs leave them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gss_kernels import ROUTES
from gss_train.config import Config
from gss_train.config.options import DataOptions, RunOptions, TrainingOptions
from gss_train.data import DATASETS, MODALITY_SUBSETS, published_splits
from gss_train.evaluation import Evaluation, write_evaluation
from gss_train.evaluation.metrics import MEASURES, SCORES
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.runs.records import VoteRecord

SHAPE = (12, 14, 10)


def scores_of(seed: int, subjects: tuple[str, ...] = ("a", "b", "c"), gain: float = 0.0) -> SubsetScores:
    """Scores of three subjects; every Dice grows by the gain."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(subjects), len(MODALITY_SUBSETS), len(SCORES))
    measures = {name: torch.rand(shape, generator=generator, dtype=torch.float64) for name in MEASURES}
    measures["dice"] = measures["dice"] * 0.5 + gain
    return SubsetScores(subjects, SCORES, measures)


def published_evaluation(dataset: str, split: str, means: tuple[float, ...]) -> Evaluation:
    """Of the test subjects of a published split, by a network that was trained on its training subjects."""
    subjects = published_splits(dataset)[split].listed.test
    dice = torch.tensor(means, dtype=torch.float64).expand(len(subjects), len(MODALITY_SUBSETS), len(SCORES)).clone()
    settings = {"network": "rfnet", "weights": "last", "part": "test", "spacing": None}
    settings |= {"split": split, "trained_as_published": True}
    return Evaluation("run", DATASETS[dataset], SubsetScores(subjects, SCORES, {"dice": dice}), settings)


def settings_of(arm: str, seed: int, **changes: Any) -> Config:
    training = TrainingOptions(baseline_epochs=2, epochs=2, fusion_warmup_epochs=0, gss=arm == "gss")
    if arm == "longer":
        training = dataclasses.replace(training, init_from=Path(f"baseline-{seed}/baseline.pt"))
    training = dataclasses.replace(training, **changes)
    return Config(DataOptions("brats2018"), training=training, run=RunOptions(preset="quick", seed=seed))


def write_run(folder: Path, config: Config, scores: SubsetScores, subjects: tuple[str, ...] = ()) -> Path:
    """A finished run; of the subjects there are pictures."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "environment.json").write_text(json.dumps({"gpu": None, "threads": 2, "packages": {"torch": "2"}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _metrics(config)))
    settings = {"network": config.network.network, "weights": "last", "part": "test", "crop_size": [16, 16, 16]}
    write_evaluation(folder / "evaluation", Evaluation(folder.name, DATASETS["brats2018"], scores, settings))
    for number, name in enumerate(subjects):
        _write_subject(folder / "evaluation" / "subjects" / f"{name}.npz", number, config.run.seed)
    return folder


def _metrics(config: Config) -> list[dict[str, Any]]:
    terms = {"total": 3.0, "fused": 1.0, "separate": 1.0, "auxiliary": 1.0, "gss": 0.5, "regulariser": 0.0}
    shared = {"stage": "baseline", "learning_rate": 1e-3, "terms": terms}
    steps = {"gss_weight": 0.0, "gradient_norm": 1.0, "skipped_steps": 0, "peak_memory_mb": 2500.0}
    lines: list[dict[str, Any]] = []
    for epoch in (1, 2):
        lines += [
            {"kind": "steps", "epoch": epoch, "step": epoch, "steps": 1, "samples_per_second": 3.0, **steps, **shared},
            {
                "kind": "epoch",
                "epoch": epoch,
                "stage_epoch": epoch,
                "step": epoch,
                "seconds": 40.0 * epoch,
                **shared,
            },
            {
                "kind": "validation",
                "stage": "baseline",
                "epoch": epoch,
                "step": epoch,
                "mean_dice": 0.25 * epoch,
                "dice": {"T2": dict.fromkeys(SCORES, 0.25 * epoch)},
                "best": True,
                "vote": dataclasses.asdict(vote_of(config)),
            },
        ]
    return lines


def vote_of(config: Config) -> VoteRecord:
    """With GSS the target is above all modalities, in the baseline below T1ce, by more with a higher seed; no T1."""
    target, seed = 0.75 if config.training.gss else 0.5, config.run.seed / 100
    values = {"target": target + seed, "FLAIR": 0.25, "T1ce": 0.625 - seed, "T1": None, "T2": 0.375, "fusion": 0.875}
    categories = DATASETS["brats2018"].categories
    routes = {name: dict(zip(ROUTES, (0.5, 0.25, 0.125, 0.125), strict=True)) for name in categories}
    return VoteRecord(2, routes, {name: dict.fromkeys(categories, value) for name, value in values.items()})


def _write_subject(path: Path, number: int, seed: int) -> None:
    generator = np.random.default_rng(number)
    truth = np.zeros(SHAPE, np.uint8)
    truth[3:9, 4:10, 2:8] = generator.integers(0, 4, (6, 6, 6), np.uint8)
    predictions = np.stack([np.roll(truth, seed + subset % 3, axis=0) for subset in range(len(MODALITY_SUBSETS))])
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        image=generator.integers(0, 256, (4, *SHAPE), np.uint8),
        available=np.array([True, True, True, number != 1]),
        truth=truth,
        predictions=predictions,
        spacing=np.array([1.0, 1.0, 2.0]),
    )
