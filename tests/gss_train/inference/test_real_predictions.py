"""Real scans, stored in other ways, are predicted alike; what cannot be predicted is refused."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations
from nibabel.processing import resample_from_to
from torch import Tensor

from gss_train.common.errors import UserError
from gss_train.data import Subject
from gss_train.inference import Ensemble, Outputs, Predictor
from gss_train.runs import TrainedNetwork
from tests.real_scans import DATASET, each_odd_case, each_subject

COARSE, MILLIMETRE = (4.0, 4.0, 4.0), (1.0, 1.0, 1.0)
# Of what is segmented from a copy of 1.5 x 1.5 x 2 mm, by thresholds alone, which know no neighbours.
LEAST_DICE = 0.85


class Bright(torch.nn.Module):
    """Takes what is bright in FLAIR for oedema and what is brighter still in T1ce for an enhancing tumour."""

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        return (x,)

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        (x,) = features
        flair, enhanced = x[:, 0], x[:, 1]
        nothing = torch.zeros_like(flair)
        return torch.stack([nothing, nothing - 9, 3 * (flair - 1), 3 * (enhanced - 1.5)], dim=1)


def predictor(spacing: tuple[float, float, float] | None, *, one_grid: bool = True) -> Predictor:
    crop = (32, 32, 32) if spacing == COARSE else (128, 128, 128)
    member = TrainedNetwork(Bright(), "rfnet", DATASET, crop, Path("bright"), frozenset(), 1, spacing)
    return Predictor(Ensemble.of([member]), torch.device("cpu"), one_grid=one_grid)


def label_map(files: dict[str, Path], output: Path, spacing: tuple[float, float, float] | None) -> nib.Nifti1Image:
    ours = predictor(spacing)
    ours.predict(ours.read(Subject("real", None, files, None)), Outputs.at(output, with_probabilities=False), quiet)
    return nib.load(output)


def quiet(done: int, total: int) -> None:
    pass


def stored_otherwise(path: Path, target: Path, axes: str, kind: type) -> Path:
    image = nib.load(path)
    goal = orientations.axcodes2ornt(axes)
    image = image.as_reoriented(orientations.ornt_transform(orientations.io_orientation(image.affine), goal))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(kind), image.affine), target)
    return target


def resampled(path: Path, target: Path) -> Path:
    image = nib.load(path)
    affine = image.affine @ np.diag([1.5, 1.5, 2, 1])
    shape = np.ceil(np.divide(image.shape, (1.5, 1.5, 2))).astype(int)
    found = resample_from_to(image, (tuple(shape), affine), order=1)
    # As resampling leaves the brain's border: it is no background.
    nib.save(nib.Nifti1Image(found.get_fdata().astype(np.float32), affine), target)
    return target


@each_subject
@pytest.mark.parametrize("spacing", [pytest.param(None, marks=pytest.mark.exhaustive, id="own"), COARSE], ids=str)
def test_another_orientation_and_type_change_nothing(
    subject: Subject, spacing: tuple[float, float, float] | None, tmp_path: Path
) -> None:
    original = label_map(subject.images, tmp_path / "original.nii", spacing)
    kinds = {"FLAIR": np.float32, "T1ce": np.float64, "T1": np.int32, "T2": np.int16}
    copies = {
        modality: stored_otherwise(
            path, tmp_path / f"{modality}.nii", "RAS" if modality != "T1" else "PIR", kinds[modality]
        )
        for modality, path in subject.images.items()
    }
    copy = label_map(copies, tmp_path / "copy.nii", spacing)
    assert np.unique(np.asarray(original.dataobj)).tolist() == [0, 2, 4]
    back = copy.as_reoriented(
        orientations.ornt_transform(
            orientations.io_orientation(copy.affine), orientations.io_orientation(original.affine)
        )
    )
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(original.dataobj))


@each_subject
def test_another_voxel_size_changes_little(subject: Subject, tmp_path: Path) -> None:
    original = label_map(subject.images, tmp_path / "original.nii", COARSE)
    copies = {modality: resampled(path, tmp_path / f"{modality}.nii") for modality, path in subject.images.items()}
    copy = label_map(copies, tmp_path / "copy.nii", COARSE)
    back = resample_from_to(copy, original, order=0)
    first, second = (np.asarray(image.dataobj) != 0 for image in (original, back))
    dice = 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))
    assert dice > LEAST_DICE


def shape_of(path: Path) -> tuple[int, ...]:
    return nib.load(path).shape


def background_share(path: Path) -> float:
    voxels = np.asarray(nib.load(path).dataobj)
    return float((voxels == 0).mean())


@each_odd_case
def test_odd_scans_end_as_they_should(case: Subject, tmp_path: Path) -> None:
    def read(spacing: tuple[float, float, float] | None):
        return predictor(spacing, one_grid=spacing is None).read(case)

    affines = [nib.load(path).affine for path in case.images.values()]
    shapes = {shape_of(path) for path in case.images.values()}
    one_grid = len(shapes) == 1 and all(np.allclose(affine, affines[0], atol=1e-2) for affine in affines)
    if any(len(shape) != 3 for shape in shapes):
        for spacing in (None, COARSE):
            with pytest.raises(UserError, match="should have three dimensions"):
                read(spacing)
    elif min(map(background_share, case.images.values())) < 0.25:
        with pytest.raises(UserError, match="skull-strip it, with 0 in every voxel outside the brain"):
            read(COARSE)
    elif one_grid:
        for spacing in (None, COARSE):
            assert not read(spacing).warnings
    else:
        with pytest.raises(UserError, match=r"should have .* give a --spacing"):
            read(None)
        scans = read(COARSE)
        assert any(re.search("placed by its affine, as --spacing asks for", warning) for warning in scans.warnings)
        output = tmp_path / "map.nii.gz"
        predictor(COARSE, one_grid=False).predict(scans, Outputs.at(output, with_probabilities=False), quiet)
        first = nib.load(next(iter(case.images.values())))
        assert nib.load(output).shape == first.shape
        np.testing.assert_allclose(nib.load(output).affine, first.affine, atol=1e-4)
