"""Prepares subjects: the work that is interrupted and killed."""

from __future__ import annotations

from pathlib import Path

from gss_train.data import DATASETS, Preparation, find_subjects, prepare_dataset


def prepare(output: Path, raw: str | Path, size: int = 4) -> Preparation:
    """All BraTS2020 subjects below `raw`, to so many voxels an axis at least."""
    dataset = DATASETS["brats2020"]
    return prepare_dataset(find_subjects(Path(raw), dataset), dataset, output, (size, size, size), workers=1)
