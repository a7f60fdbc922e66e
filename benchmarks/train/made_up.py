"""Prepared subjects of noise, written without reading scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gss_train.common import Triple, to_triple
from gss_train.data import DATASETS, VOXEL_DTYPE, Metadata, Recipe, write_prepared


def make_up_subjects(folder: Path, count: int, shape: Triple) -> None:
    """Write so many subjects, each with a cube of noise for a tumour."""
    for number in range(count):
        _make_up_subject(folder, f"made-up-{number}", shape, np.random.default_rng(number))


def _make_up_subject(folder: Path, name: str, shape: Triple, generator: np.random.Generator) -> None:
    dataset = DATASETS["brats2020"]
    voxels = np.empty(shape, VOXEL_DTYPE)
    voxels["image"] = generator.standard_normal((*shape, 4))
    voxels["label"] = 0
    middle = tuple(slice(length // 4, length // 2) for length in shape)
    voxels["label"][middle] = generator.integers(dataset.num_categories, size=voxels["label"][middle].shape)
    metadata = Metadata(
        name=name,
        grade=None,
        original_shape=shape,
        box=tuple((0, length) for length in shape),
        affine=tuple(map(tuple, np.eye(4).tolist())),
        spacing=(1.0, 1.0, 1.0),
        orientation="LPS",
        available=(True, True, True, True),
        has_label=True,
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
        background=(0.0,) * 4,
        sources={},
        digests={},
        warnings=(),
        recipe=Recipe(0, dataset.name, dataset.label_values, shape),
        tumour_voxels=tuple(map(to_triple, np.argwhere(voxels["label"]).tolist())),
    )
    write_prepared(folder / f"{name}.npy", voxels, metadata)
