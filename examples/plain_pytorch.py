"""GSS in a plain PyTorch loop, with groups of one's own: `python examples/plain_pytorch.py`.

Three made-up scans of a lesion with a core: the first shows the lesion, the second its core, the third both, but
faintly. A network predicts from each scan alone; the scans that see a category best teach the others. Some subjects
lack a scan, which `available` says. Takes seconds on a CPU.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gss_kernels import ROUTES, CategoryGroups, fused_gss_objective

GROUPS = CategoryGroups(
    leaders=((0, 1), (0,), (1,)),
    categories=("background", "lesion", "core"),
    modalities=("lesion scan", "core scan", "faint scan"),
)
GSS_WEIGHT = 0.3 * 8.0**2 / 10  # as published, for the temperature 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Step(NamedTuple):
    """What a training step minimised: `total = supervised + GSS_WEIGHT * gss`."""

    total: float
    supervised: float
    gss: float


class HeadPerModality(nn.Module):
    """A small network for each scan: `[B, M, D, H, W]` to M logits `[B, C, D, H, W]`."""

    def __init__(self, num_modalities: int, num_categories: int, width: int = 8) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, num_categories, 3, padding=1))
            for _ in range(num_modalities)
        )

    def forward(self, scans: Tensor) -> list[Tensor]:
        """The prediction of every scan, before the softmax."""
        return [head(scans[:, m : m + 1]) for m, head in enumerate(self.heads)]


def subjects(count: int, size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Scans `[B, 3, D, H, W]`, labels `[B, D, H, W]` and which scans there are, `[B, 3]`."""
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    centres = torch.empty(count, 3, 1, 1, 1).uniform_(-0.3, 0.3)
    distance = (grid - centres).square().sum(dim=1).sqrt()
    labels = (distance < 0.6).long() + (distance < 0.3)
    lesion, core = (labels == 1).float(), (labels == 2).float()
    scans = torch.stack((lesion + 0.5 * core, core, 0.3 * lesion + 0.6 * core), dim=1)
    scans += 0.2 * torch.randn_like(scans)
    available = torch.rand(count, 3) > 0.15
    scans[~available] = 0
    return scans.to(DEVICE), labels.to(DEVICE), available.to(DEVICE)


def main(steps: int = 60, gss_weight: float = GSS_WEIGHT) -> list[Step]:
    """Train, print and return what every step minimised."""
    if steps < 1:
        raise ValueError(f"steps: got {steps}, need at least 1")
    torch.manual_seed(0)
    network = HeadPerModality(len(GROUPS.modalities or ()), GROUPS.num_categories).to(DEVICE)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    history: list[Step] = []
    for step in range(steps):
        scans, labels, available = subjects(count=4)
        terms = fused_gss_objective(
            network(scans),
            labels,
            GROUPS,
            gss_weight=gss_weight,
            available=available,
            divergence="cross_entropy",  # the gradient of "kl", and a value that cannot be negative
            return_stats=True,
        )
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        # Reading numbers waits for a GPU: fine in an example, once in a while in a real loop.
        supervised = (terms.cross_entropy + terms.dice).sum().item()
        history.append(Step(terms.total.item(), supervised, terms.gss.item()))
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in history[-1]._asdict().items()))
    if terms.statistics is not None:
        for name, shares in zip(GROUPS.categories or (), terms.statistics.routes.tolist(), strict=True):
            print(f"{name}: " + ", ".join(f"{route} {share:.0%}" for route, share in zip(ROUTES, shares, strict=True)))
        print("agreement: " + ", ".join(f"{share:.0%}" for share in terms.statistics.agreement.tolist()))
    return history


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
