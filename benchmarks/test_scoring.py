"""Scores of whole subjects, HD95 included: in one process, and in several as an evaluation starts them.

Smooth predictions are as of a trained network, a tumour that is somewhat elsewhere; in noisy ones each fiftieth voxel
has a category of its own, as of a network after its first steps, and distances go between as many surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.measuring import Figures, Measure, Size
from benchmarks.results_table import ONE_PROCESS
from benchmarks.timing import wall_seconds
from gss_train.common import default_workers
from gss_train.data import DATASETS

_VOLUME = {"full": (136, 168, 136), "small": (32, 40, 32)}
_CASES = {"smooth": {"full": 300, "small": 6}, "noisy": {"full": 60, "small": 6}}
_RADII = (0.26, 0.16, 0.1)  # of the three categories, as shares of an axis; they lie in each other
_NOISE = 0.02

pytestmark = pytest.mark.long


def _tumour(shape: Sequence[int], shift: float) -> Tensor:
    """Category indices `[D, H, W]` of three balls in each other, moved along all axes by a share of these."""
    axes = [torch.arange(length) / length - 0.5 - shift for length in shape]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    label = torch.zeros(*shape, dtype=torch.uint8)
    for category, radius in zip((2, 1, 3), _RADII, strict=True):
        label[distance < radius] = category
    return label


def _add_noise(label: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(4, label.shape, generator=generator, dtype=torch.uint8)
    return torch.where(torch.rand(label.shape, generator=generator) < _NOISE, noise, label)


@pytest.mark.parametrize("workers", [1, 0], ids=["serial", "pooled"])
@pytest.mark.parametrize("kind", _CASES)
def test_scoring(measure: Measure, size: Size, kind: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of the processes counts: they are started after some cases, as in an evaluation."""
    if size == "small" and kind == "smooth" and not workers:
        pytest.skip("a quick check starts processes for noisy cases only")
    pytest.importorskip("monai", reason="needs the training dependencies")
    from gss_train.evaluation import MEASURES, scorers  # noqa: PLC0415  (needs the training dependencies)

    # Else there would be too little to start any.
    monkeypatch.setattr(scorers, "_WORTH_SECONDS", 0)
    workers, cases = workers or default_workers(), _CASES[kind][size]
    truth = _tumour(_VOLUME[size], 0)
    smooth = _tumour(_VOLUME[size], 0.015)
    prediction = smooth if kind == "smooth" else _add_noise(smooth)

    figures: Figures = {}

    def score() -> None:
        with scorers.Scorers(DATASETS["brats2020"], tuple(MEASURES), cases, workers) as started:
            waiting = [started.submit(prediction, truth, (1.0, 1.0, 1.0)) for _ in range(cases)]
            for future in waiting:
                future.result()

    def call() -> None:
        figures["cases_per_s"] = cases / wall_seconds(score)

    shape = " x ".join(map(str, _VOLUME[size]))
    measure(
        call,
        group=f"scores of {cases} {kind} cases of {shape} voxels, all measures",
        name=ONE_PROCESS if workers == 1 else f"{workers} processes",
        once=True,
        figures=figures,
    )
