"""GSS for a network that returns probabilities, as RFNet and MiMoSe do: `python examples/network_of_probabilities.py`.

Such networks predict three times in training: from all scans together (fused), from each scan alone (separate), and on
coarser grids on the way (auxiliary); each time after the softmax. All are supervised, and GSS joins in for the separate
ones: their logarithm is as good as logits. The subjects are made up. Takes seconds on a CPU.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gss_kernels import BRATS_2018, GSSLoss, SegmentationLoss

TEMPERATURE = 8.0
GSS_WEIGHT = 0.3 * TEMPERATURE**2 / 10  # as published
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# How bright FLAIR, T1ce, T1 and T2 (rows) show background, necrosis, oedema and enhancing tumour.
BRIGHTNESS = torch.tensor([[0.2, 0.4, 1.0, 0.8], [0.3, 0.1, 0.3, 1.0], [0.4, 0.2, 0.3, 0.3], [0.2, 0.7, 0.9, 0.6]])


class Step(NamedTuple):
    """What a training step minimised: `total = supervised + GSS_WEIGHT * gss`."""

    total: float
    supervised: float
    gss: float


class Predictions(NamedTuple):
    """Probabilities `[B, C, D, H, W]`: one tensor, one for each scan, one for each level."""

    fused: Tensor
    separate: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...]


class SmallNetwork(nn.Module):
    """An encoder for each scan, a head that all scans share, and one for what they know together."""

    def __init__(self, num_modalities: int = 4, num_categories: int = 4, width: int = 8) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.ReLU()) for _ in range(num_modalities)
        )
        self.separate = nn.Conv3d(width, num_categories, 3, padding=1)
        self.fused = nn.Conv3d(num_modalities * width, num_categories, 3, padding=1)
        self.auxiliary = nn.Conv3d(num_modalities * width, num_categories, 1)

    def forward(self, scans: Tensor) -> Predictions:
        """All predictions for scans `[B, M, D, H, W]`; the auxiliary one is brought back to their grid."""
        features = [encoder(scans[:, m : m + 1]) for m, encoder in enumerate(self.encoders)]
        together = torch.cat(features, dim=1)
        coarse = self.auxiliary(nn.functional.avg_pool3d(together, 2)).softmax(dim=1)
        return Predictions(
            self.fused(together).softmax(dim=1),
            tuple(self.separate(own).softmax(dim=1) for own in features),
            (nn.functional.interpolate(coarse, scale_factor=2, mode="trilinear"),),
        )


def subjects(count: int, size: int = 16) -> tuple[Tensor, Tensor]:
    """Scans `[B, 4, D, H, W]` and labels `[B, D, H, W]`."""
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    distance = (grid - torch.empty(count, 3, 1, 1, 1).uniform_(-0.3, 0.3)).square().sum(dim=1).sqrt()
    labels = torch.zeros_like(distance).long()
    for category, radius in ((2, 0.7), (3, 0.45), (1, 0.25)):
        labels[distance < radius] = category
    scans = BRIGHTNESS[:, labels].transpose(0, 1)
    return (scans + 0.2 * torch.randn_like(scans)).to(DEVICE), labels.to(DEVICE)


def main(steps: int = 40, gss_weight: float = GSS_WEIGHT) -> list[Step]:
    """Train, print and return what every step minimised."""
    torch.manual_seed(0)
    network = SmallNetwork().to(DEVICE)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    supervise = SegmentationLoss("probabilities")
    support = GSSLoss(BRATS_2018, temperature=TEMPERATURE, divergence="cross_entropy")
    history: list[Step] = []
    for step in range(steps):
        scans, labels = subjects(count=2)
        fused, separate, auxiliary = network(scans)
        supervised = supervise(fused, labels) + sum(supervise(own, labels) for own in (*separate, *auxiliary))
        # The bound keeps a probability that underflowed from an infinite logarithm.
        gss = support([own.clamp(min=1e-30).log() for own in separate])
        total = supervised + gss_weight * gss
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(Step(total.item(), supervised.item(), gss.item()))
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in history[-1]._asdict().items()))
    return history


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
