from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from raw_files import RAS_AFFINE, write_mha, write_nifti

from gss_train.data.volumes import VolumeError, read_volume


@pytest.fixture
def voxels() -> np.ndarray:
    return np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_keeps_voxels_and_affine(tmp_path: Path, voxels: np.ndarray, ending: str) -> None:
    affine = RAS_AFFINE @ np.diag((0.5, 2.0, 3.0, 1.0))
    write_nifti(tmp_path / f"scan{ending}", voxels, affine)
    volume = read_volume(tmp_path / f"scan{ending}")
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, affine)
    assert volume.affine.dtype == np.float64
    np.testing.assert_allclose(volume.spacing, (0.5, 2, 3))


def test_scaled_integers_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    values = np.linspace(-1.5, 2.5, 24).reshape(4, 3, 2)
    image = nib.Nifti1Image(values, RAS_AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").voxels, values, atol=1e-4)


def test_metaimage_and_nifti_agree_on_voxels_and_millimetres(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    array = generator.integers(0, 100, (4, 3, 2)).astype(np.int16)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(turn.ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / "scan.mha"))
    SimpleITK.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    from_mha, from_nifti = read_volume(tmp_path / "scan.mha"), read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(from_mha.voxels, array)
    np.testing.assert_array_equal(from_nifti.voxels, array)
    np.testing.assert_allclose(from_mha.affine, from_nifti.affine, atol=1e-5)
    np.testing.assert_allclose(from_mha.spacing, (1, 2, 3))
    left, posterior, superior = image.TransformIndexToPhysicalPoint((3, 1, 1))
    np.testing.assert_allclose(from_mha.affine @ (3, 1, 1, 1), (-left, -posterior, superior, 1))


@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut"])
def test_unreadable_files_are_named(tmp_path: Path, voxels: np.ndarray, name: str, damage: str) -> None:
    path = tmp_path / name
    if damage == "cut":
        big = np.random.default_rng(0).integers(0, 1000, (40, 30, 20)).astype(np.int16)
        (write_mha if name.endswith(".mha") else write_nifti)(path, big)
        path.write_bytes(path.read_bytes()[:2000])
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"this is no scan" * 50)
    with pytest.raises(VolumeError, match=f"{name}: cannot be read, should be a"):
        read_volume(path)


def test_other_file_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"scan\.png: .*should end with \.mha, \.nii or \.nii\.gz"):
        read_volume(tmp_path / "scan.png")


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)])
def test_other_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_nifti(tmp_path / "scan.nii.gz", np.ones(shape, np.float32))
    with pytest.raises(VolumeError, match=r"scan\.nii\.gz: has shape .* should have three dimensions"):
        read_volume(tmp_path / "scan.nii.gz")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones(shape, np.float32)), str(tmp_path / "scan.mha"))
    with pytest.raises(VolumeError, match=r"scan\.mha: has \d dimensions .* should have 3 dimensions"):
        read_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    voxels = np.ones((4, 3, 2), np.float32)
    voxels[1, 1, 1] = value
    write_nifti(tmp_path / "scan.nii.gz", voxels)
    with pytest.raises(VolumeError, match=r"scan\.nii\.gz: 1 of 24 voxels are NaN or infinite"):
        read_volume(tmp_path / "scan.nii.gz")


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scan.nii.gz", np.ones((4, 3, 2), np.complex64))
    with pytest.raises(VolumeError, match="voxels of type complex64"):
        read_volume(tmp_path / "scan.nii.gz")
