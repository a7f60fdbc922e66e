"""Tiny raw data sets, written with the formats' own libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from scipy import ndimage

from gss_train.data.datasets import MODALITIES

NIFTI_SUFFIXES = {"FLAIR": "flair", "T1ce": "t1ce", "T1": "t1", "T2": "t2", "label": "seg"}
MHA_INFIXES = {"FLAIR": "MR_Flair", "T1ce": "MR_T1c", "T1": "MR_T1", "T2": "MR_T2", "label": "OT"}
RAS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


@dataclass
class Raw:
    """Arrays of one subject, [D,H,W] in (x,y,z)."""

    images: dict[str, np.ndarray]
    label: np.ndarray


def make_raw(shape=(14, 13, 12), box=((3, 11), (2, 10), (4, 9)), seed=0, label_values=(0, 1, 2, 4)) -> Raw:
    """A brain of random numbers that fills `box` and a tumour in its middle; all else is 0."""
    generator = np.random.default_rng(seed)
    inside = tuple(slice(start, stop) for start, stop in box)
    images = {}
    for number, modality in enumerate(MODALITIES):
        voxels = np.zeros(shape, np.int16)
        voxels[inside] = generator.integers(1, 400 * (number + 1), voxels[inside].shape)
        images[modality] = voxels
    # Dark in one modality only: still brain.
    images["T1"][inside][::2, ::3] = 0
    label = np.zeros(shape, np.uint8)
    core = tuple(slice(start + 2, stop - 2) for start, stop in box)
    label[core] = generator.choice(label_values, label[core].shape)
    return Raw(images, label)


def make_head(shape=(32, 30, 28), seed=0, tumour_side=-1) -> Raw:
    """An ellipsoid of smooth random tissue, seen in four contrasts, with a tumour on one side of the first axis."""
    generator = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij"))
    lump = np.exp(-((place - generator.uniform(-0.2, 0.2, (3, 1, 1, 1))) ** 2).sum(0) * 4)
    waves = [
        np.sin(3 * np.tensordot(direction, place, 1) + phase)
        for direction, phase in zip(generator.normal(size=(6, 3)), generator.uniform(0, 6, 6), strict=True)
    ]
    tissue = lump + sum(waves) / 4
    brain = ((place - generator.uniform(-0.05, 0.05, (3, 1, 1, 1))) ** 2).sum(0) < 0.7
    distance = ((place - np.array([0.4 * tumour_side, 0.1, 0]).reshape(3, 1, 1, 1)) ** 2).sum(0)
    tumour = brain & (distance < 0.08)
    label = np.where(tumour, np.where(distance < 0.02, 1, np.where(distance < 0.04, 4, 2)), 0).astype(np.uint8)
    contrasts = {"FLAIR": tissue + 3 * tumour, "T1ce": -tissue + 2 * (label == 4), "T1": -tissue, "T2": tissue**2}
    contrasts["T2"] = contrasts["T2"] + 3 * tumour
    images = {}
    for modality in MODALITIES:
        noise = generator.normal(0, 0.05, shape)
        images[modality] = np.where(brain, 1000 + 200 * (contrasts[modality] + noise), 0).astype(np.int16)
    return Raw(images, label)


def make_folded_head(shape=(32, 30, 28), seed=0, tumour_side=-1) -> Raw:
    """A brain of the same shape for every seed, with folds of its own, which are finer than those of `make_head`.

    With voxels of some 4 mm the files' places can be compared.
    """
    generator = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij"))
    brain = (place**2).sum(0) < 0.8
    folds = _blobs(generator, shape, 1.2)
    centre = np.array([0.4 * tumour_side, *generator.uniform(-0.3, 0.3, 2)]).reshape(3, 1, 1, 1)
    distance = ((place - centre) ** 2).sum(0)
    tumour = distance < 0.1
    label = np.where(tumour, np.where(distance < 0.03, 1, np.where(distance < 0.05, 4, 2)), 0).astype(np.uint8)
    contrasts = {"FLAIR": folds + 4 * tumour, "T1ce": -folds, "T1": -(folds**3), "T2": folds**2 + 4 * tumour}
    images = {}
    for modality in MODALITIES:
        contrast = contrasts[modality] + _blobs(generator, shape, 1) / 4
        images[modality] = np.where(brain, 2000 + 100 * contrast, 0).clip(0).astype(np.int16)
    return Raw(images, label)


def _blobs(generator: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    blobs = ndimage.gaussian_filter(generator.normal(size=shape), width)
    return blobs / blobs.std()


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = RAS_AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write_mha(path: Path, voxels: np.ndarray, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    SimpleITK.WriteImage(image, str(path))


def write_subject(folder: Path, raw: Raw, ending: str = ".nii.gz", spacing: float = 1.0) -> None:
    """Writes a subject as BraTS2018 and 2020 do, or with `.mha` as BraTS2015."""
    affine = RAS_AFFINE @ np.diag((spacing, spacing, spacing, 1))
    for number, (role, voxels) in enumerate([*raw.images.items(), ("label", raw.label)]):
        if ending == ".mha":
            part = f"VSD.Brain{'_3more' if role == 'label' else ''}.XX.O.{MHA_INFIXES[role]}.{54500 + number}"
            write_mha(folder / part / f"{part}.mha", voxels, (spacing,) * 3)
        else:
            write_nifti(folder / f"{folder.name}_{NIFTI_SUFFIXES[role]}{ending}", voxels, affine)
