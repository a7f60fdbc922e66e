"""A whole run: prepare, train, evaluate, report."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from gss_train.config import Config
from gss_train.data import Dataset, PreparedSubject, TrainingCrops
from gss_train.engine.checkpoint import LoadedWeights, load_weights, save_checkpoint
from gss_train.engine.evaluation import evaluate_subsets, read_subject, segment_subsets
from gss_train.engine.figures import save_summary
from gss_train.engine.objective import published_baseline
from gss_train.engine.progress import show_progress
from gss_train.engine.run_folder import RunFolder, describe_environment, refuse_used_folder
from gss_train.engine.tables import csv_table, markdown_table
from gss_train.engine.training import EpochRecord, Stage, plan_stages, train
from gss_train.errors import UserError
from gss_train.models import SegmentationNetwork, build_network
from gss_train.sources import find_source, prepare, resolve_dataset


def run(config: Config) -> None:
    """Train, evaluate and leave a run folder.

    Raises:
        UserError: a setting, a file or the data cannot be used; the message names it.
        OSError: the disk is full, or a folder cannot be written.
        ModuleNotFoundError: an optional package is needed and not installed.
    """
    config, dataset = resolve_dataset(config)
    device = _pick_device(config.run.device)
    torch.manual_seed(config.run.seed)
    network, loaded = _build(config, dataset, device)
    output = config.run.output or _default_output(config)
    refuse_used_folder(output)
    _announce(config, dataset, device, network)
    source = find_source(config, dataset)
    _refuse_leak(config, loaded, source.split.test)
    source, preparation = prepare(config, dataset, source)
    subjects = {subject.name: subject for subject in preparation.subjects}

    folder = RunFolder(output)
    folder.write_json("config.json", config.to_json())
    folder.write_json("environment.json", describe_environment(device))
    folder.write_json("split.json", vars(source.split))
    if preparation.left_out:
        folder.write_json("left_out.json", [fault.to_json() for fault in preparation.left_out])
    records = _train(config, dataset, network, [subjects[name] for name in source.split.train], device, folder, loaded)
    network.eval()
    _evaluate(config, dataset, network, [subjects[name] for name in source.split.test], device, folder, records)


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device: got {name!r}, which cannot be used here: {error}") from error
    return device


def _build(config: Config, dataset: Dataset, device: torch.device) -> tuple[SegmentationNetwork, LoadedWeights | None]:
    options = config.network
    try:
        network = build_network(
            options.network,
            dataset.num_categories,
            crop_size=config.data.crop,
            width=options.width,
            activation_checkpointing=options.activation_checkpointing,
        )
    except ValueError as error:
        raise UserError(f"--network, --crop-size, --width: {error}") from error
    loaded = None
    if config.training.init_from is not None:
        loaded = load_weights(network, config.training.init_from)
        keys = loaded.public_keys
        which = "all weights" if keys is None else f"{len(keys.used)} public keys, {len(keys.unused)} not used"
        print(f"Starting from {config.training.init_from}: {which}")
    network.to(device)
    return network, loaded


def _refuse_leak(config: Config, loaded: LoadedWeights | None, test: Sequence[str]) -> None:
    """Weights must not be tested on subjects that they were trained on."""
    leaked = sorted(loaded.training_subjects & set(test)) if loaded is not None else []
    if leaked:
        raise UserError(
            f"--init-from: {config.training.init_from} was trained on {len(leaked)} of the {len(test)} test subjects, "
            f"such as {leaked[0]}; take the --split-seed, --fold or --split-file of its run"
        )


def _announce(config: Config, dataset: Dataset, device: torch.device, network: SegmentationNetwork) -> None:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    stages = ", then ".join(f"{stage.name} of {stage.epochs} epochs" for stage in plan_stages(config.training))
    crop = "x".join(str(length) for length in config.data.crop)
    print(f"{dataset.title}: {dataset.num_categories} categories ({', '.join(dataset.categories)})")
    if config.run.preset == "quick" and not config.data.uses_phantom:
        print("Preset quick: a first look at your data, not the published training; that is --preset paper, on a GPU")
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
    loaded: LoadedWeights | None,
) -> list[EpochRecord]:
    options = config.training
    length = options.batch_size * options.steps_per_epoch
    crops = TrainingCrops(subjects, config.data.crop, length, config.run.seed, config.data.tumour_share)
    total_steps = options.steps_per_epoch * sum(stage.epochs for stage in plan_stages(options))
    seen = {subject.name for subject in subjects} | (loaded.training_subjects if loaded is not None else set())
    records: list[EpochRecord] = []
    started = time.monotonic()
    network.train()
    with show_progress("training") as meter:
        note = ""

        def on_step(stage: Stage, step: int, loss: float | None) -> None:
            nonlocal note
            note = note if loss is None else f"{stage.name}, loss {loss:.3f}"
            meter(step, total_steps, note)

        def on_epoch(stage: Stage, record: EpochRecord, optimiser: torch.optim.Optimizer) -> None:
            records.append(record)
            folder.log_metrics({"kind": "epoch", **vars(record), "seconds": round(time.monotonic() - started, 3)})
            progress = {"epoch": record.epoch, "step": record.step, "training_subjects": sorted(seen)}
            save_checkpoint(folder.checkpoint, network, optimiser, progress)
            if record.stage_epoch == stage.epochs:
                save_checkpoint(folder.stage_checkpoint(stage.name), network, optimiser, progress)

        meter(0, total_steps)
        train(
            network,
            crops,
            dataset.groups,
            options,
            workers=config.data.workers,
            device=device,
            seed=config.run.seed,
            augmentation=config.augmentation.settings(),
            baseline=published_baseline(config.network.network),
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
    folder.log_metrics(
        {
            "kind": "test",
            "dice_all_modalities": _by_name(scores.names, scores.mean[-1]),
            "dice_mean_over_subsets": _by_name(scores.names, scores.overall),
        }
    )
    print(f"\nDice in per cent on {len(subjects)} held-out subjects, by the modalities given:\n\n{table}", flush=True)
    image, truth = read_subject(subjects[0])
    prediction = segment_subsets(network, image.to(device), config.data.crop, [subjects[0].available])[0].cpu()
    save_summary(folder.summary, subjects[0], image, truth, prediction, dataset, records)
    print(f"Run folder: {folder.path}", flush=True)


def _by_name(names: Sequence[str], values: Tensor) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in zip(names, values.tolist(), strict=True)}
