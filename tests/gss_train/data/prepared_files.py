"""Prepared subjects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gss_train.common import Triple
from gss_train.data.datasets import Dataset, Subject
from gss_train.data.preparation import prepare_dataset
from gss_train.data.prepared import VOXEL_DTYPE, PreparedSubject, write_prepared


def prepare_subject(
    subject: Subject,
    dataset: Dataset,
    folder: Path,
    grown_size: Triple,
    **options: bool,
) -> PreparedSubject:
    (prepared,) = prepare_dataset([subject], dataset, folder, grown_size, 1, **options).subjects
    return prepared


def padded_file(subject: PreparedSubject, size: Triple, folder: Path) -> PreparedSubject:
    """The subject as if its file had been made for crops of `size`, with the background in it."""
    metadata, padding = subject.metadata, subject.padded_to(size).padding
    voxels = np.load(subject.path)
    images = [
        np.pad(voxels["image"][..., number], padding, constant_values=np.float16(background))
        for number, background in enumerate(metadata.background)
    ]
    padded = np.zeros(images[0].shape, VOXEL_DTYPE)
    padded["image"], padded["label"] = np.stack(images, axis=-1), np.pad(voxels["label"], padding)
    affine = np.array(metadata.affine)
    before = [before for before, _ in padding]
    affine[:3, 3] += affine[:3, :3] @ np.subtract([start for start, _ in metadata.box], before)
    own = replace(
        metadata,
        box=tuple((0, length) for length in padded.shape),
        original_shape=padded.shape,
        affine=tuple(map(tuple, affine.tolist())),
        tumour_voxels=tuple(map(tuple, np.add(subject.tumour_voxels, before).tolist())),
    )
    truth = None if metadata.truth is None else subject.truth()[tuple(slice(*ends) for ends in metadata.truth.box)]
    return write_prepared(folder / f"{subject.name}.npy", padded, own, truth)
