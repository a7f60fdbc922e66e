"""A training step of a network, as a plain formulation or as this package has it, and what it takes in memory.

`python -m benchmarks.network_steps '{"network": "rfnet", "variant": "plain", "edge": 32}'` takes two steps in a
process of its own and prints by how many bytes its resident memory grew.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.measuring import Size
from benchmarks.timing import Call
from gss_kernels import BRATS_2015, BRATS_2018
from gss_train.common import peak_resident_bytes
from gss_train.models import build_network
from gss_train.training import BASELINE, GROUP_SELF_SUPPORT, Objective

Variant = Literal["plain", "lean", "lean, checkpointing"]
VARIANTS: tuple[Variant, ...] = ("plain", "lean", "lean, checkpointing")
_PLAIN_CLASSES = {
    "rfnet": "PlainRFNet",
    "mmformer": "PlainMMFormer",
    "robustseg": "PlainRobustSeg",
    "uhved": "PlainUHVED",
}
PUBLISHED_EDGES = {"rfnet": 80, "mmformer": 128, "robustseg": 80, "uhved": 112}
_CPU_EDGE = 48
_GROUPS = {4: BRATS_2018, 5: BRATS_2015}


@dataclass(frozen=True)
class StepSettings:
    """Of a training step.

    Attributes:
        network: its name.
        variant: "plain" is the formulation in `benchmarks/baselines/`.
        edge: voxels of a crop along each axis.
        width: channels of one modality at the finest level; None: as published.
        categories: C, 4 or 5.
        batch: crops.
        gss: with the GSS loss.
        bfloat16: under autocast.
    """

    network: str
    variant: Variant
    edge: int
    width: int | None = None
    categories: int = 5
    batch: int = 1
    gss: bool = True
    bfloat16: bool = False


def benchmark_edge(network: str, size: Size, device: torch.device, given: int | None) -> int:
    """The crop that a network is benchmarked with."""
    if size == "small":
        return 32 if network == "mmformer" else 16
    return given or (PUBLISHED_EDGES[network] if device.type == "cuda" else _CPU_EDGE)


def build(settings: StepSettings) -> nn.Module:
    """The network of a step, with weights of seed 0."""
    torch.manual_seed(0)
    crop_size = (settings.edge,) * 3
    if settings.variant != "plain":
        return build_network(
            settings.network,
            settings.categories,
            crop_size=crop_size,
            width=settings.width,
            activation_checkpointing=settings.variant == "lean, checkpointing",
        )
    module = importlib.import_module(f"benchmarks.baselines.{settings.network}")
    options: dict[str, Any] = {} if settings.width is None else {"width": settings.width}
    if settings.network == "mmformer":
        options["crop_size"] = crop_size
    plain: nn.Module = getattr(module, _PLAIN_CLASSES[settings.network])(settings.categories, **options)
    return plain


def training_step(settings: StepSettings, device: torch.device) -> Call:
    """Forward pass, objective, backward pass and optimiser."""
    network = build(settings).to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-4, weight_decay=1e-4, amsgrad=True)
    objective = Objective(_GROUPS[settings.categories], GROUP_SELF_SUPPORT if settings.gss else BASELINE)
    space = (settings.edge,) * 3
    image = torch.randn(settings.batch, 4, *space, device=device)
    labels = torch.randint(settings.categories, (settings.batch, *space), device=device)
    fused_modalities = torch.tensor([[True, False, True, True]], device=device).expand(settings.batch, 4).contiguous()
    available = torch.ones_like(fused_modalities)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            output = network(image, fused_modalities, available)
        total = objective(output, labels, available, seed=0).total
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()

    return step


def resident_growth(settings: StepSettings) -> int:
    """Bytes by which the peak resident memory of a fresh process grows in its first two steps on the CPU."""
    command = [sys.executable, "-m", "benchmarks.network_steps", json.dumps(dataclasses.asdict(settings))]
    root = Path(__file__).parents[1]
    return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


def main(text: str) -> None:
    """Print the growth; see `resident_growth`."""
    step = training_step(StepSettings(**json.loads(text)), torch.device("cpu"))
    before = peak_resident_bytes()
    step()
    step()
    sys.stdout.write(f"{peak_resident_bytes() - before}\n")


if __name__ == "__main__":
    main(sys.argv[1])
