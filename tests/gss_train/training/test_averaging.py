from __future__ import annotations

import torch

from gss_train.models import build_network
from gss_train.training.averaging import WeightAverage


def test_the_average_follows_by_its_decay_and_soon_forgets_the_start() -> None:
    torch.manual_seed(0)
    network = build_network("uhved", 4, crop_size=(16, 16, 16), width=2)
    average = WeightAverage(network, decay=0.5)
    expected = [parameter.detach().double() for parameter in network.parameters()]
    for step in range(1, 30):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.follow(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        trained = [parameter.detach().double() for parameter in network.parameters()]
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, trained, strict=True)]
    for own, value in zip(average.network.parameters(), expected, strict=True):
        torch.testing.assert_close(own.double(), value, rtol=1e-5, atol=1e-5)


def test_the_copy_is_evaluated_and_not_trained() -> None:
    network = build_network("uhved", 4, crop_size=(16, 16, 16), width=2).train()
    average = WeightAverage(network, decay=0.9)
    assert not average.network.training
    assert network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
