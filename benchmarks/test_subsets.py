"""The predictions for all 15 modality subsets of one crop: encoded once, by whole passes, and by the plain network."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.measuring import Measure, Size
from benchmarks.network_steps import StepSettings, benchmark_edge, build
from benchmarks.results_table import PLAIN, WHOLE_PASSES
from benchmarks.timing import Call
from gss_train.models import NETWORKS, SegmentationNetwork

_ENCODED_ONCE = "encoded once"
_SUBSETS = [subset for subset in itertools.product((False, True), repeat=4) if any(subset)]

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", [PLAIN, WHOLE_PASSES, _ENCODED_ONCE])
@pytest.mark.parametrize("network", NETWORKS)
def test_subsets(
    measure: Measure, device: torch.device, size: Size, crop_edge: int | None, network: str, name: str
) -> None:
    edge = benchmark_edge(network, size, device, crop_edge)
    width = 4 if size == "small" else None
    settings = StepSettings(network, "plain" if name == PLAIN else "lean", edge, width=width)
    measure(
        _prediction(settings, device, encoded_once=name == _ENCODED_ONCE),
        group=f"15 subsets, {network}, width {width or 'published'}, 1 x {edge}^3, C = 5",
        name=name,
    )


def _prediction(settings: StepSettings, device: torch.device, *, encoded_once: bool) -> Call:
    network = build(settings).to(device).eval()
    image = torch.randn(1, 4, *(settings.edge,) * 3, device=device)
    available = torch.ones(1, 4, dtype=torch.bool, device=device)
    subsets = torch.tensor(_SUBSETS, device=device)[:, None]

    @torch.no_grad()
    def predict_from_features() -> None:
        assert isinstance(network, SegmentationNetwork)
        features = network.encode(image, available)
        for subset in subsets:
            network.fuse(features, subset)

    @torch.no_grad()
    def predict() -> None:
        for subset in subsets:
            network(image, subset, available)

    return predict_from_features if encoded_once else predict
