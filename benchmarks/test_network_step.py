"""A training step: forward, objective, backward and optimiser, with and without group self-support."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measuring import Measure, Size
from gss_kernels import BRATS_2018
from gss_train.engine.objective import BASELINE, GROUP_SELF_SUPPORT, Objective, ObjectiveWeights
from gss_train.models import build_network

_GPU = torch.cuda.is_available()
_EDGE = {"full": 80 if _GPU else 32, "small": 16}
_WIDTH = None if _GPU else 8
_BATCH, _MODALITIES = 2, 4
_WITHOUT_GSS, _WITH_GSS = "without GSS", "with GSS"


@pytest.mark.parametrize(
    ("name", "weights"), [(_WITHOUT_GSS, BASELINE), (_WITH_GSS, GROUP_SELF_SUPPORT)], ids=[_WITHOUT_GSS, _WITH_GSS]
)
@pytest.mark.parametrize("network_name", ["rfnet"])
def test_network_step(
    measure: Measure, device: torch.device, size: Size, network_name: str, name: str, weights: ObjectiveWeights
) -> None:
    edge = _EDGE[size]
    torch.manual_seed(0)
    network = build_network(network_name, BRATS_2018.num_categories, crop_size=(edge, edge, edge), width=_WIDTH)
    network.to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-4, weight_decay=1e-4, amsgrad=True)
    objective = Objective(BRATS_2018, weights)
    image = torch.randn(_BATCH, _MODALITIES, edge, edge, edge, device=device)
    labels = torch.randint(BRATS_2018.num_categories, (_BATCH, edge, edge, edge), device=device)
    fused_modalities = torch.tensor([[True, False, True, True], [True, True, True, True]], device=device)
    available = torch.ones_like(fused_modalities)

    def step() -> None:
        output = network(image, fused_modalities, available)
        total = objective(output, labels, available, seed=0).total
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()

    measure(step, group=f"training step, {network_name}, width {_WIDTH or 'published'}, {_BATCH} x {edge}^3", name=name)
