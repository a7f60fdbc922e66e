"""Trains some small networks for two steps and validates them; alone, or as one of several processes.

`python together.py FOLDER` is two processes, each of which writes FOLDER/rank-<rank>.pt; which of them it is, each has
in its environment, as from `torchrun`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which making an optimiser imports, here once for both processes

from gss_kernels import BRATS_2018
from gss_train.common.processes import Processes, join_processes
from gss_train.config import SelfSupportOptions, TrainingOptions
from gss_train.data import DATASETS, PreparedSubject, TrainingCrops
from gss_train.models import build_network
from gss_train.training import Computation
from gss_train.training.batches import BatchPlan, TrainingBatches
from gss_train.training.gathering import Gathered
from gss_train.training.loop import training_step
from gss_train.training.objective import Objective
from gss_train.training.parallel import ParallelNetwork
from gss_train.training.schedule import plan_stages
from gss_train.training.state import TrainingState
from gss_train.training.validation import validate
from tests.gss_train.training.voxelwise import VoxelwiseNetwork, make_subject
from tests.two_processes import be_two

CROP = (16, 16, 16)
# RFNet once; a layer for each prediction has the same losses.
CASES: dict[str, dict[str, Any]] = {
    "gss": {"network": "rfnet", "gss": True},
    "baseline": {"gss": False},
    "squared dice": {"dice_denominator": "squares", "gss": False},
    "plain cross-entropy": {"cross_entropy": "plain", "gss": False},
    "per sample, two passes": {"gss": True, "dice": "per-sample", "accumulate": 2},
}
VALIDATED = "baseline"


def make_subjects(folder: Path) -> list[PreparedSubject]:
    """Five of them, one without T1ce."""
    subjects = [make_subject(folder, f"subject-{number}", number, 20) for number in range(5)]
    available = (True, False, True, True)
    subjects[1] = dataclasses.replace(
        subjects[1], metadata=dataclasses.replace(subjects[1].metadata, available=available)
    )
    return subjects


def train_and_validate(case: str, subjects: list[PreparedSubject], processes: Processes) -> dict[str, Any]:
    """Two steps with a batch of four: gradients, weights and terms; in one case with a validation."""
    changes = dict(CASES[case])
    name = changes.pop("network", None)
    options = TrainingOptions(
        **{
            "steps_per_epoch": 2,
            "batch_size": 4,
            "epochs": 1,
            "baseline_epochs": 0,
            "fusion_warmup_epochs": 0,
            **changes,
        }
    )
    # Every process begins with other weights, and takes the first one's.
    torch.manual_seed(processes.rank)
    network = VoxelwiseNetwork() if name is None else build_network(name, 4, crop_size=CROP, width=4)
    settings = Computation(torch.device("cpu"))
    (stage,) = plan_stages(dataclasses.replace(options, rounds=1), SelfSupportOptions())
    state = TrainingState(network, options.steps_per_epoch, gathered=Gathered(processes))
    crops = TrainingCrops(subjects, CROP, 8, seed=3)
    batches = TrainingBatches(crops, BatchPlan(4, options.accumulate, 2, processes), seed=3)
    parallel = ParallelNetwork(network, processes)
    update = state.begin_or_continue_stage(options, settings)
    gradients = []
    for passes in batches.steps(epoch=0):
        loss = Objective(
            BRATS_2018, stage.objective, per_sample=options.dice == "per-sample", process_group=processes.group
        )
        state.count_step(training_step(parallel, passes, loss, update, settings, processes, return_stats=True))
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    fetched = state.gathered.fetch()
    results = {
        "gradients": gradients,
        "weights": [parameter.detach().clone() for parameter in network.parameters()],
        "terms": [step.terms for step in fetched],
        "norms": [step.gradient_norm for step in fetched],
        "vote": state.gathered.vote(),
    }
    if case == VALIDATED:
        where = {"stage": stage.name, "epoch": 1, "step": 2}
        record = validate(
            network, subjects[:3], DATASETS["brats2018"], CROP, settings.device, **where, processes=processes
        )
        assert record.vote is not None
        results |= {
            "dice": record.dice,
            "mean_dice": record.mean_dice,
            "validated vote": dataclasses.asdict(record.vote),
        }
    return results


def run_all(rank: int, folder: Path) -> None:
    """Run all cases."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    with join_processes("cpu") as processes:
        scratch = folder / f"subjects-{processes.rank}"
        scratch.mkdir()
        subjects = make_subjects(scratch)
        cases = {case: train_and_validate(case, subjects, processes) for case in CASES}
        torch.save(cases, folder / f"rank-{processes.rank}.pt")


if __name__ == "__main__":
    sys.exit(be_two(run_all, Path(sys.argv[1])))
