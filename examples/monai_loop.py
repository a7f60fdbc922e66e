"""GSS in a MONAI training loop, with the groups of BraTS: `python examples/monai_loop.py`.

A UNet of MONAI, shared by the scans, predicts from each of them alone; `DiceCELoss` supervises it and `GSSLoss` joins
in. The subjects are made up: every scan shows the regions of a tumour in its own greys. Takes seconds on a CPU.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Compose, NormalizeIntensityd, RandFlipd, RandGaussianNoised
from monai.utils import set_determinism
from torch import Tensor

from gss_kernels import BRATS_2018, GSSLoss

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


def subject(size: int = 16) -> dict[str, Tensor]:
    """The scans `[4, D, H, W]` and the labels `[1, D, H, W]` of one subject."""
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    distance = (grid - torch.empty(3, 1, 1, 1).uniform_(-0.3, 0.3)).square().sum(dim=0).sqrt()
    labels = torch.zeros_like(distance).long()
    for category, radius in ((2, 0.7), (3, 0.45), (1, 0.25)):
        labels[distance < radius] = category
    return {"image": BRIGHTNESS[:, labels], "label": labels[None]}


def loader(subjects: int, batch_size: int) -> DataLoader:
    """Batches of normalised, flipped and noisy subjects."""
    transform = Compose(
        [
            NormalizeIntensityd("image", channel_wise=True),
            RandFlipd(("image", "label"), prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=1.0, std=0.2),
        ]
    )
    return DataLoader(Dataset([subject() for _ in range(subjects)], transform), batch_size=batch_size, shuffle=True)


def main(steps: int = 30, gss_weight: float = GSS_WEIGHT) -> list[Step]:
    """Train, print and return what every step minimised."""
    set_determinism(seed=0)
    network = UNet(3, in_channels=1, out_channels=4, channels=(8, 16), strides=(2,), num_res_units=1).to(DEVICE)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    supervise = DiceCELoss(to_onehot_y=True, softmax=True)
    support = GSSLoss(BRATS_2018, temperature=TEMPERATURE, divergence="cross_entropy")
    batches = loader(subjects=8, batch_size=2)
    history: list[Step] = []
    while len(history) < steps:
        for batch in batches:
            images, labels = (batch[key].to(DEVICE) for key in ("image", "label"))
            logits = torch.stack([network(images[:, m : m + 1]) for m in range(4)], dim=1)  # [B, M, C, D, H, W]
            supervised = sum(supervise(logits[:, m], labels) for m in range(4))
            gss = support(logits)
            total = supervised + gss_weight * gss
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            history.append(Step(total.item(), supervised.item(), gss.item()))
            if len(history) % 10 == 1 or len(history) == steps:
                print(f"step {len(history)}: " + ", ".join(f"{k} {v:.3f}" for k, v in history[-1]._asdict().items()))
            if len(history) == steps:
                break
    return history


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
