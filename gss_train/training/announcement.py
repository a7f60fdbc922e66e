"""What a run says of itself before anything is done."""

from __future__ import annotations

import torch
from torch import nn

from gss_train.common import times
from gss_train.data import millimetres
from gss_train.inference import describe_precision
from gss_train.runs import LoadedWeights
from gss_train.training.plan import TrainingPlan


def announcement(plan: TrainingPlan, network: nn.Module, origin: LoadedWeights | None) -> list[str]:
    """Lines that say what was chosen.

    Args:
        plan: of the run.
        network: that it trains.
        origin: of the first weights, if they are not drawn.
    """
    lines = []
    config, options, batch_plan, processes = plan.config, plan.config.training, plan.batch_plan, plan.processes
    if origin is not None:
        keys = origin.public_keys
        which = "all weights" if keys is None else f"{len(keys.used)} public keys, {len(keys.unused)} not used"
        lines.append(f"Starting from {options.init_from}: {which}")
    categories = plan.dataset.categories
    lines.append(f"{plan.dataset.title}: {len(categories)} categories ({', '.join(categories)})")
    if config.run.preset == "quick" and not config.data.uses_phantom:
        lines.append("Preset quick: a first look at your data, not the published training, which is --preset paper")
    if config.data.voxel_size is not None:
        lines.append(
            f"Scans and labels are brought to {millimetres(config.data.voxel_size)} (--spacing), predictions back"
        )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    others = f" and {processes.size - 1} more" if processes.size > 1 else ""
    lines.append(
        f"Preset {config.run.preset}: {config.network.network} with {parameters:,} parameters on {plan.device}"
        f"{others}, {describe_precision(options.precision, plan.device)}{_cudnn_said(plan.device)}"
    )
    stages = ", then ".join(f"{stage.name} of {stage.epochs} epochs" for stage in plan.stages)
    divided = f" ({batch_plan.pass_size} at a time)" if batch_plan.pass_size < batch_plan.batch_size else ""
    lines.append(
        f"Stages: {stages}; {batch_plan.steps} steps an epoch of {batch_plan.batch_size} crops{divided} of "
        f"{times(config.data.crop)} voxels; seed {config.run.seed}"
    )
    return lines


def _cudnn_said(device: torch.device) -> str:
    """How cuDNN picks its algorithms, where there is cuDNN."""
    if device.type != "cuda":
        return ""
    cudnn = torch.backends.cudnn
    benchmark, deterministic = ("on" if holds else "off" for holds in (cudnn.benchmark, cudnn.deterministic))
    return f", cuDNN benchmark {benchmark}, deterministic {deterministic}"
