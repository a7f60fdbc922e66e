"""A validation of two subjects of one window each: with what the vote knows, as every training does it, and without."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

from benchmarks.crop_files import make_crops
from benchmarks.measuring import Measure, Size
from benchmarks.network_steps import StepSettings, benchmark_edge, build
from gss_train.data import DATASETS
from gss_train.models import NETWORKS

_WITH_VOTE = "with the vote"

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["without", _WITH_VOTE])
@pytest.mark.parametrize("network", NETWORKS)
def test_validation(
    measure: Measure, device: torch.device, size: Size, crop_edge: int | None, tmp_path: Path, network: str, name: str
) -> None:
    edge = benchmark_edge(network, size, device, crop_edge)
    subjects = make_crops(tmp_path, edge, (edge,) * 3, length=1).subjects
    from gss_train.training.validation import validate  # noqa: PLC0415  (needs the training dependencies)

    width = 4 if size == "small" else None
    built = build(StepSettings(network, "lean", edge, width=width, categories=4)).to(device)

    def call() -> None:
        with mock.patch.object(type(built), "has_separate_predictions", name == _WITH_VOTE):
            record = validate(
                built, subjects, DATASETS["brats2020"], (edge,) * 3, device, stage="baseline", epoch=1, step=1
            )
        assert (record.vote is not None) == (name == _WITH_VOTE)

    measure(call, group=f"validation, {network}, width {width or 'published'}, 2 x {edge}^3, C = 4", name=name)
