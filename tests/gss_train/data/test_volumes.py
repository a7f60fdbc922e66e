from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings, strategies as st

from gss_train.data.volumes import (
    Volume,
    VolumeError,
    read_grid,
    read_volume,
    reorient,
    restore_orientation,
    write_volume,
)
from tests.gss_train.data.raw_files import RAS_AFFINE, write_mha, write_nifti


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
    np.testing.assert_allclose(volume.grid.spacing, (0.5, 2, 3))


def test_scaled_integers_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    values = np.linspace(-1.5, 2.5, 24).reshape(4, 3, 2)
    image = nib.Nifti1Image(values, RAS_AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").voxels, values, atol=1e-4)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f4", "<f8", "u1", "<u4"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_are_those_that_nibabel_reads(tmp_path: Path, dtype: str, kind: type[nib.Nifti1Image]) -> None:
    array = np.random.default_rng(0).integers(0, 200, (5, 4, 3)).astype(dtype)
    header = kind.header_class(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(np.dtype(dtype))
    image = kind(array, RAS_AFFINE @ np.diag((1, 2, 3, 1)), header)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"which moves the voxels"))
    nib.save(image, tmp_path / "scan.nii.gz")
    volume, expected = read_volume(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volume.voxels, np.asarray(expected.dataobj))
    np.testing.assert_array_equal(volume.affine, expected.affine)
    assert volume.voxels.dtype == np.dtype(dtype).newbyteorder("=")


def test_voxels_may_begin_at_any_byte(tmp_path: Path, voxels: np.ndarray) -> None:
    write_nifti(tmp_path / "scan.nii", voxels)
    content = (tmp_path / "scan.nii").read_bytes()
    header = nib.Nifti1Header(content[:348])
    header["vox_offset"] = 356
    (tmp_path / "scan.nii").write_bytes(header.binaryblock + bytes(8) + content[352:])
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").voxels, voxels)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_metaimage_voxels_are_those_that_simpleitk_reads(tmp_path: Path, dtype: type, compressed: bool) -> None:
    array = np.random.default_rng(0).integers(0, 100, (2, 3, 4)).astype(dtype)
    image = SimpleITK.GetImageFromArray(array)
    SimpleITK.WriteImage(image, str(tmp_path / "scan.mha"), useCompression=compressed)
    volume = read_volume(tmp_path / "scan.mha")
    np.testing.assert_array_equal(volume.voxels, array.transpose(2, 1, 0))
    assert volume.voxels.dtype == dtype


def test_metaimages_may_be_big_endian(tmp_path: Path, voxels: np.ndarray) -> None:
    write_mha(tmp_path / "scan.mha", voxels)
    header, line, data = (tmp_path / "scan.mha").read_bytes().partition(b"LOCAL\n")
    header = header.replace(b"ByteOrderMSB = False", b"ByteOrderMSB = True")
    (tmp_path / "scan.mha").write_bytes(header + line + np.frombuffer(data, "<i2").astype(">i2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.mha").voxels, voxels)


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
    np.testing.assert_allclose(from_mha.grid.spacing, (1, 2, 3))
    left, posterior, superior = image.TransformIndexToPhysicalPoint((3, 1, 1))
    np.testing.assert_allclose(from_mha.affine @ (3, 1, 1, 1), (-left, -posterior, superior, 1))


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.nii.gz"])
def test_what_is_written_is_read_and_is_the_same_file_each_time(
    tmp_path: Path, name: str, dtype: type, shear: float
) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (4, 3, 2)).astype(dtype)
    affine = np.array([[-1, shear, 0, 10], [0, -2, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1]])
    for path in (tmp_path / "first" / name, tmp_path / "second" / name):
        path.parent.mkdir()
        with path.open("wb") as file:
            write_volume(file, name, voxels, affine)
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.voxels, voxels)
        assert volume.voxels.dtype == dtype
        np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.nii.gz"])
def test_the_grid_of_a_file_is_that_of_its_volume_whatever_its_voxels_are(tmp_path: Path, name: str) -> None:
    """Turned and flipped; the voxels are noise, so that compressed ones are long, and their end is cut off."""
    affine = np.array([[0, 0, 3.0, 5], [0.5, 0, 0, -7], [0, -2.0, 0, 11], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).integers(0, 30_000, (16, 15, 14)).astype(np.int16)
    with (tmp_path / name).open("wb") as file:
        write_volume(file, name, voxels, affine)
    expected = reorient(read_volume(tmp_path / name)).grid
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:2000])
    grid = read_grid(tmp_path / name)
    assert grid.shape == expected.shape == (14, 16, 15)
    np.testing.assert_allclose(grid.affine, expected.affine)


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
    with pytest.raises(
        VolumeError, match=r"scan\.mha: .* (NDims '2', should be '3'|ElementNumberOfChannels '2', should be '1')"
    ):
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


ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*order)
]


def volume_in(orientation: str, shape: tuple[int, int, int], degrees: float = 0.0) -> Volume:
    """A volume without two equal voxels; its axes are turned off their directions by the angle, about two axes."""
    directions = {"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1), "L": (-1, 0, 0), "P": (0, -1, 0), "I": (0, 0, -1)}
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([directions[letter] for letter in orientation]).T * (0.5, 1.0, 2.0)
    affine[:3, 3] = (11, -7, 5)
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)


def places(volume: Volume) -> np.ndarray:
    """Where each voxel lies, sorted by the voxels' values, [N,3]."""
    indices = np.indices(volume.voxels.shape).reshape(3, -1)
    world = (volume.affine[:3, :3] @ indices).T + volume.affine[:3, 3]
    return world[np.argsort(volume.voxels.ravel())]


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@settings(max_examples=4, derandomize=True, database=None)
@given(shape=st.tuples(*3 * [st.integers(1, 4)]), degrees=st.floats(-30, 30))
def test_reorientation_moves_no_voxel_in_the_world(
    orientation: str, shape: tuple[int, int, int], degrees: float
) -> None:
    volume = volume_in(orientation, shape, degrees)
    assert volume.orientation == orientation
    official = reorient(volume)
    assert official.orientation == "LPS"
    np.testing.assert_allclose(places(official), places(volume), rtol=0, atol=1e-9)
    assert sorted(official.grid.spacing) == pytest.approx(sorted(volume.grid.spacing))
    restored = restore_orientation(official.voxels, orientation)
    np.testing.assert_array_equal(restored, volume.voxels)


def test_a_volume_as_official_files_have_it_is_returned_itself() -> None:
    volume = volume_in("LPS", (2, 3, 4), degrees=20)
    assert reorient(volume) is volume


def test_reorientation_agrees_with_simpleitk() -> None:
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetDirection((0, 0, -1, 1, 0, 0, 0, 1, 0))
    oriented = SimpleITK.DICOMOrient(image, "LPS")
    affine = np.diag((-1.0, -1.0, 1.0, 1.0)) @ np.block(
        [
            [np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing(), np.reshape(image.GetOrigin(), (3, 1))],
            [np.zeros((1, 3)), np.ones((1, 1))],
        ]
    )
    ours = reorient(Volume(array.transpose(2, 1, 0), affine))
    np.testing.assert_array_equal(ours.voxels.transpose(2, 1, 0), SimpleITK.GetArrayFromImage(oriented))
    np.testing.assert_allclose(ours.grid.spacing, oriented.GetSpacing())
    np.testing.assert_allclose(ours.affine[:3, 3] * (-1, -1, 1), oriented.GetOrigin(), atol=1e-9)


@pytest.mark.parametrize("orientation", ["", "LP", "xyz", "LPX", "lps", "LPSS"])
def test_restoring_refuses_what_is_no_orientation(orientation: str) -> None:
    with pytest.raises(ValueError, match=r"axis codes|orientations"):
        restore_orientation(np.zeros((2, 2, 2)), orientation)
