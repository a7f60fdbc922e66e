"""A whole run: prepare, train, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from gss_train.config import Config
from gss_train.data import DATASETS, Dataset, PreparedSubject, TrainingCrops
from gss_train.engine.checkpoint import load_weights, save_checkpoint
from gss_train.engine.evaluation import evaluate_subsets, read_subject, segment_subsets
from gss_train.engine.figures import save_summary
from gss_train.engine.progress import show_progress
from gss_train.engine.run_folder import RunFolder, describe_environment
from gss_train.engine.tables import csv_table, markdown_table
from gss_train.engine.training import EpochRecord, Stage, plan_stages, train
from gss_train.metrics import SCORES
from gss_train.models import SegmentationNetwork, build_network
from gss_train.sources import prepare_subjects, split


def run(config: Config) -> None:
    """Train, evaluate and leave a run folder.

    Raises:
        ValueError: a setting that cannot be used; the message names its flag.
        FileExistsError: the output folder is not empty.
        Exception: as the parts say; the callers' errors are those of `gss_train.main`.
    """
    dataset = DATASETS[config.data.dataset]
    device = _pick_device(config.run.device)
    torch.manual_seed(config.run.seed)
    network = _build(config, dataset, device)
    _announce(config, dataset, device, network)
    folder = RunFolder(config.run.output or _default_output(config))
    folder.write_json("config.json", config.to_json())
    folder.write_json("environment.json", describe_environment(device))

    subjects = {subject.name: subject for subject in prepare_subjects(config, dataset)}
    parts = split(config, dataset, list(subjects.values()))
    folder.write_json("split.json", vars(parts))
    records = _train(config, dataset, network, [subjects[name] for name in parts.train], device, folder)
    network.eval()
    _evaluate(config, dataset, network, [subjects[name] for name in parts.test], device, folder, records)


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: got {name!r}, which cannot be used here: {error}") from error
    return device


def _build(config: Config, dataset: Dataset, device: torch.device) -> SegmentationNetwork:
    network = build_network(
        config.network.network, dataset.num_categories, crop_size=config.data.crop, width=config.network.width
    )
    path = config.training.init_from
    if path is not None:
        report = load_weights(network, path)
        keys = "all keys" if report is None else f"{len(report.used)} public keys, {len(report.unused)} not used"
        print(f"Starting from {path}: {keys}")
    network.to(device)
    return network


def _announce(config: Config, dataset: Dataset, device: torch.device, network: SegmentationNetwork) -> None:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    stages = ", then ".join(f"{stage.name} of {stage.epochs} epochs" for stage in plan_stages(config.training))
    crop = "x".join(str(length) for length in config.data.crop)
    print(f"{dataset.title}: {dataset.num_categories} categories ({', '.join(dataset.categories)})")
    print(f"Preset {config.run.preset}: {config.network.network} with {parameters:,} parameters on {device}")
    print(
        f"Stages: {stages}; {config.training.steps_per_epoch} steps an epoch of {config.training.batch_size} crops of "
        f"{crop} voxels; seed {config.run.seed}",
        flush=True,
    )


def _default_output(config: Config) -> Path:
    objective = "gss" if config.training.gss else "baseline"
    return Path("runs") / f"{config.data.dataset}-{config.network.network}-{objective}-{datetime.now():%Y%m%d-%H%M%S}"


def _train(
    config: Config,
    dataset: Dataset,
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    device: torch.device,
    folder: RunFolder,
) -> list[EpochRecord]:
    options = config.training
    length = options.batch_size * options.steps_per_epoch
    crops = TrainingCrops(subjects, config.data.crop, length, config.run.seed, config.data.tumour_share)
    total_steps = options.steps_per_epoch * sum(stage.epochs for stage in plan_stages(options))
    records: list[EpochRecord] = []
    started = time.monotonic()

    with show_progress("training") as meter:

        def on_step(stage: Stage, step: int, loss: float) -> None:
            meter(step, total_steps, f"{stage.name}, loss {loss:.3f}")

        def on_epoch(record: EpochRecord, optimiser: torch.optim.Optimizer) -> None:
            records.append(record)
            folder.log_metrics({"kind": "epoch", **vars(record), "seconds": round(time.monotonic() - started, 3)})
            progress = {"epoch": record.epoch, "step": record.step, "config": config.to_json()}
            save_checkpoint(folder.checkpoint, network, optimiser, progress)

        network.train()
        train(
            network,
            crops,
            dataset.groups,
            options,
            workers=config.data.workers,
            device=device,
            seed=config.run.seed,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    return records


def _evaluate(
    config: Config,
    dataset: Dataset,
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    device: torch.device,
    folder: RunFolder,
    records: Sequence[EpochRecord],
) -> None:
    with show_progress("evaluating") as meter:
        scores = evaluate_subsets(network, subjects, dataset, config.data.crop, device, meter)
    table = markdown_table(scores)
    folder.write_text("subsets.md", table)
    folder.write_text("subsets.csv", csv_table(scores))
    folder.log_metrics({"kind": "test", "dice": dict(zip(SCORES, scores.mean[-1].tolist(), strict=True))})
    image, truth = read_subject(subjects[0])
    prediction = segment_subsets(network, image.to(device), config.data.crop, [[True] * len(image)])[0].cpu()
    save_summary(folder.summary, subjects[0].name, image, truth, prediction, dataset, records)
    print(f"\nDice in per cent on {len(subjects)} held-out subjects, by the modalities given:\n\n{table}")
    print(f"Run folder: {folder.path}", flush=True)
