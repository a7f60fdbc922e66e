"""Prepares subjects: the work that is interrupted and killed."""

from __future__ import annotations

from pathlib import Path

from gss_train.common import final_name
from gss_train.data import DATASETS, Preparation, find_subjects, is_indexed, prepare_dataset, read_index


def prepare(output: Path, raw: str | Path, size: int = 4) -> Preparation:
    """All BraTS2020 subjects below `raw`, in boxes of so many voxels an axis, where nothing lies that is not named."""
    if output.exists():
        named = {file.name for file in read_index(output)} if is_indexed(output) else set()
        assert {final_name(path.name) for path in output.iterdir()} <= {*named, "index.jsonl"}
    dataset = DATASETS["brats2020"]
    return prepare_dataset(find_subjects(Path(raw), dataset), dataset, output, (size, size, size), workers=1)
