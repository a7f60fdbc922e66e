"""A network of three layers and subjects of four slabs, for tests of the training."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gss_train.data import PreparedSubject
from gss_train.data.prepared import VOXEL_DTYPE, Metadata, Recipe
from gss_train.models import SegmentationNetwork, SegmentationOutput

CROP = (8, 8, 8)


class VoxelwiseNetwork(SegmentationNetwork):
    """Classifies every voxel by itself, with one layer for each kind of prediction; remembers its inputs.

    Args:
        poisoned: numbers of the calls, from 1 on, in which the objective is NaN, but not its gradient.
    """

    def __init__(self, poisoned: Container[int] = ()) -> None:
        super().__init__()
        self.fusion = nn.Conv3d(4, 4, 1)
        self.deep = nn.Conv3d(4, 4, 1)
        self.separate = nn.Conv3d(1, 4, 1)
        self.poisoned = poisoned
        self.inputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(
        self, x: Tensor, fused_modalities: Tensor, available: Tensor | None = None, per_modality: bool | None = None
    ) -> SegmentationOutput:
        assert available is not None
        self.inputs.append((x.clone(), fused_modalities.clone(), available.clone()))
        kept = x * fused_modalities[:, :, None, None, None]
        poisoned = len(self.inputs) in self.poisoned
        return SegmentationOutput(
            self.fusion(kept),
            self.decode_separately((x,)),
            (torch.softmax(self.deep(kept), dim=1),),
            x.new_tensor(torch.nan if poisoned else 0.0),
        )

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        return (x,)

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        return self.fusion(features[0] * fused_modalities[:, :, None, None, None])

    def decode_separately(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.separate(scan) for scan in features[0].split(1, dim=1))


def make_subject(folder: Path, name: str, seed: int, size: int) -> PreparedSubject:
    """A cube of four slabs, one per category, each bright in a modality of its own."""
    generator = np.random.default_rng(seed)
    voxels = np.zeros((size, size, size), VOXEL_DTYPE)
    voxels["label"] = np.arange(size) * 4 // size
    voxels["image"] = 2 * np.eye(4)[voxels["label"]] + 0.3 * generator.standard_normal((size, size, size, 4))
    np.save(folder / f"{name}.npy", voxels)
    metadata = Metadata(
        name=name,
        grade=None,
        original_shape=voxels.shape,
        box=((0, size),) * 3,
        affine=tuple(tuple(row) for row in np.eye(4).tolist()),
        spacing=(1.0, 1.0, 1.0),
        orientation="LPS",
        available=(True,) * 4,
        has_label=True,
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
        background=(0.0,) * 4,
        sources={},
        digests={},
        warnings=(),
        recipe=Recipe(1, "brats2018", (0, 1, 2, 4), voxels.shape),
        tumour_voxels=(),
    )
    return PreparedSubject(name, folder / f"{name}.npy", metadata)
