"""Tiny networks and subjects to predict with and on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from gss_train.data import DATASETS, Dataset
from gss_train.data.datasets import LABEL
from gss_train.data.layouts import LAYOUTS
from gss_train.models import build_network
from gss_train.runs import TrainedNetwork, export_network

CROP = (16, 16, 16)
SPACING = (8.0, 8.0, 8.0)
"""Of heads of 24 voxels on each axis."""


def dataset_of(name: str) -> Dataset:
    """A data set, of the voxel size of tiny heads."""
    return dataclasses.replace(DATASETS[name], spacing=SPACING)


def trained_tiny(dataset: Dataset, seed: int = 0) -> TrainedNetwork:
    """A U-HVED with random weights, of which no category has it all."""
    torch.manual_seed(seed)
    network = build_network("uhved", dataset.num_categories, crop_size=CROP, width=4).eval()
    return TrainedNetwork(network, "uhved", dataset, CROP, Path(f"seed{seed}"), frozenset(), 4)


def export_tiny(path: Path, name: str, seed: int, training_subjects: Collection[str] = ()) -> Path:
    trained = trained_tiny(dataset_of(name), seed)
    export_network(dataclasses.replace(trained, training_subjects=frozenset(training_subjects)), path)
    return path


def scan_files(folder: Path, name: str = "brats2020") -> dict[str, Path]:
    """The scans in a subject's folder, by modality."""
    files = LAYOUTS[name].find_files(folder)
    return {role: paths[0] for role, paths in files.items() if role != LABEL}


def flags(files: dict[str, Path]) -> list[str]:
    return [part for modality, path in files.items() for part in (f"--{modality.lower()}", str(path))]


def rewrite(path: Path, target: Path, voxels: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """Copies a NIfTI file with other voxels or another affine."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj) if voxels is None else voxels
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), target)
    return target


def voxels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)
