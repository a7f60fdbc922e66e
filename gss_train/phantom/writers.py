"""File names and formats of the BraTS editions, as the real data sets are distributed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# World position of the first voxel in BraTS files, in mm left, back and up; the axes point left, back and up.
ORIGIN = (0.0, -239.0, 0.0)


@dataclass(frozen=True)
class SubjectFiles:
    """Where the files of a subject go.

    Attributes:
        folder: the subject's folder below the data set's root, with `/` between parts.
        images: per modality (FLAIR, T1ce, T1, T2) the file below `folder`.
        label: the label file below `folder`.
    """

    folder: str
    images: dict[str, str]
    label: str


def subject_files(dataset: str, index: int, *, high_grade: bool, compressed: bool) -> SubjectFiles:
    """Names for subject `index` (from 0) of `dataset`.

    Args:
        dataset: `brats2015`, `brats2018` or `brats2020`.
        index: number of the subject.
        high_grade: whether it lies below `HGG` or `LGG` (2015 and 2018).
        compressed: `.nii.gz` rather than `.nii` (2018 and 2020).
    """
    grade = "HGG" if high_grade else "LGG"
    suffix = ".nii.gz" if compressed else ".nii"
    if dataset == "brats2015":
        return _brats2015_files(grade, index)
    if dataset == "brats2018":
        name = f"Brats18_PHANTOM_{index + 1:03d}_1"
        return _nifti_files(f"{grade}/{name}", name, suffix)
    name = f"BraTS20_Training_{index + 1:03d}"
    return _nifti_files(name, name, suffix)


def _brats2015_files(grade: str, index: int) -> SubjectFiles:
    """BraTS2015 mixes subjects of BraTS2013 and of TCIA, whose labels are named differently."""
    if index % 2 == 0:
        subject, label = f"brats_2013_pat{index + 1:04d}_1", "VSD.Brain_3more.XX.XX.OT"
    else:
        subject, label = f"brats_tcia_pat{index + 100:03d}_1", "VSD.Brain.XX.XX.OT"
    kinds = {"FLAIR": "MR_Flair", "T1ce": "MR_T1c", "T1": "MR_T1", "T2": "MR_T2"}
    first_id = 50_000 + 10 * index
    stems = {m: f"VSD.Brain.XX.O.{kind}.{first_id + k}" for k, (m, kind) in enumerate(kinds.items())}
    label = f"{label}.{first_id + len(stems)}"
    images = {modality: f"{stem}/{stem}.mha" for modality, stem in stems.items()}
    return SubjectFiles(f"{grade}/{subject}", images, f"{label}/{label}.mha")


def _nifti_files(folder: str, name: str, suffix: str) -> SubjectFiles:
    kinds = {"FLAIR": "flair", "T1ce": "t1ce", "T1": "t1", "T2": "t2"}
    return SubjectFiles(folder, {m: f"{name}_{kind}{suffix}" for m, kind in kinds.items()}, f"{name}_seg{suffix}")


def write_volume(path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing: float) -> None:
    """Write a volume (x, y, z) in BraTS orientation as the format `path` ends with: `.mha`, `.nii` or `.nii.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _write_metaimage if path.suffix == ".mha" else _write_nifti
    write(path, volume, spacing)


def _write_metaimage(path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing: float) -> None:
    import SimpleITK  # noqa: PLC0415 (needed for BraTS2015 only)

    image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.transpose()))
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin(ORIGIN)
    SimpleITK.WriteImage(image, str(path), useCompression=True, compressionLevel=1)


def _write_nifti(path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing: float) -> None:
    import nibabel  # noqa: PLC0415 (slow to import, not needed for BraTS2015)

    # NIfTI counts mm to the right and to the front.
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = -ORIGIN[0], -ORIGIN[1], ORIGIN[2]
    image: Any = nibabel.Nifti1Image(volume, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
