"""Whatever a damaged file holds, reading it gives a volume or an error that names the file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from gss_train.data.volumes import VolumeError, read_volume
from tests.gss_train.data.raw_files import RAS_AFFINE, write_mha, write_nifti

NAMES = ("scan.nii", "scan.nii.gz", "scan.mha", "packed.mha", "two.nii")
CASES_EACH = 120
# To calculate with them, or to convert them, makes NumPy warn.
SIGNALLING_NANS = np.full(4, 0x7F800001, np.uint32).view(np.float32)

# Runs by itself: a crash, a hang or unbounded memory then fails one test instead of ending all of them. Prints one line
# of JSON per file: whether the outcome was "volume", the "same" volume, "error", or else what went wrong.
READ_ALL = """
import json, pathlib, resource, sys, warnings
import numpy as np
from gss_train.data.volumes import VolumeError, read_volume

warnings.simplefilter("error")
resident = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (resident + (1 << 29), resource.getrlimit(resource.RLIMIT_AS)[1]))
folder = pathlib.Path(sys.argv[1])
originals = {path.name: read_volume(path) for path in (folder / "whole").iterdir()}
for path in sorted((folder / "damaged").rglob("*.*")):
    try:
        volume, original = read_volume(path), originals[path.name]
        same = np.array_equal(volume.voxels, original.voxels)
        outcome = "same" if same else "volume"
    except VolumeError as error:
        outcome = "error" if str(path) in str(error) and "\\n" not in str(error) else repr(error)
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([path.parent.name, path.name, outcome]), flush=True)
"""


def write_whole(folder: Path) -> None:
    """One small file of each kind; their voxels compress badly."""
    voxels = np.random.default_rng(0).integers(0, 30_000, (9, 8, 7)).astype(np.int16)
    write_nifti(folder / "scan.nii", voxels)
    write_nifti(folder / "scan.nii.gz", voxels)
    nib.save(nib.Nifti2Image(voxels.astype(np.float32), RAS_AFFINE), folder / "two.nii")
    write_mha(folder / "scan.mha", voxels)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    SimpleITK.WriteImage(image, str(folder / "packed.mha"), useCompression=True)


def flip(content: bytes, positions: np.ndarray, generator: np.random.Generator) -> bytes:
    """Flips one bit of each byte given."""
    changed = np.frombuffer(content, np.uint8).copy()
    changed[positions] ^= (1 << generator.integers(8, size=len(positions))).astype(np.uint8)
    return changed.tobytes()


def damage(content: bytes, case: int, generator: np.random.Generator) -> tuple[str, bytes]:
    """Cuts a file short, or flips bits near its beginning, anywhere, or in what a gzip file holds."""
    kinds = ("cut", "flipped-begin", "flipped-anywhere", "overwritten")
    kind = kinds[case % len(kinds)]
    if kind == "cut":
        return kind, content[: int(generator.integers(len(content)))]
    if kind == "overwritten":
        start = int(generator.integers(min(len(content), 600)))
        noise = generator.integers(0, 256, 8, np.uint8).tobytes()
        return kind, (content[:start] + noise + content[start + len(noise) :])[: len(content)]
    end = len(content) if kind == "flipped-anywhere" else min(len(content), 360)
    return kind, flip(content, generator.integers(end, size=int(generator.integers(1, 4))), generator)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Kind of damage, file name and outcome of every case."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc/self/statm here, from which the memory that a reader may take is set")
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "whole").mkdir()
    write_whole(folder / "whole")
    generator = np.random.default_rng(1)
    for name in NAMES:
        content = (folder / "whole" / name).read_bytes()
        for case in range(CASES_EACH):
            kind, damaged = damage(content, case, generator)
            if name.endswith(".gz") and kind != "cut" and case % 8 >= 4:
                # Damage that the checksum of gzip does not show.
                kind, damaged = damage(gzip.decompress(content), case, generator)
                kind, damaged = f"packed-{kind}", gzip.compress(damaged)
            path = folder / "damaged" / f"{case:03}-{kind}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damaged)
    process = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return [tuple(json.loads(line)) for line in process.stdout.splitlines()]


def test_every_damaged_file_is_a_volume_or_an_error_that_names_it(outcomes: list[tuple[str, str, str]]) -> None:
    assert len(outcomes) == len(NAMES) * CASES_EACH
    assert [case for case in outcomes if case[2] not in {"same", "volume", "error"}] == []
    assert {outcome for _, _, outcome in outcomes} == {"same", "volume", "error"}


def test_every_cut_is_noticed(outcomes: list[tuple[str, str, str]]) -> None:
    cut = [case for case in outcomes if case[0].endswith("cut")]
    assert len(cut) == len(NAMES) * CASES_EACH // 4
    assert {outcome for _, _, outcome in cut} == {"error"}


def test_no_flip_in_compressed_voxels_changes_them_unnoticed(outcomes: list[tuple[str, str, str]]) -> None:
    compressed = [case for case in outcomes if case[1] == "scan.nii.gz" and "packed" not in case[0]]
    assert compressed
    assert "volume" not in {outcome for _, _, outcome in compressed}


def changed_nifti(path: Path, **fields: object) -> None:
    """A NIfTI file of 24 voxels whose header is overwritten."""
    image = nib.Nifti1Image(np.ones((4, 3, 2), np.int16), RAS_AFFINE)
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    header = image.header.copy()
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1], "datatype": 64, "bitpix": 64}, "it holds 48 of the 2814"),
        ({"dim": [3, -4, 3, 2, 1, 1, 1, 1]}, r"shape \(-4, 3, 2\)"),
        ({"dim": [3, 0, 3, 2, 1, 1, 1, 1]}, r"shape \(0, 3, 2\)"),
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "pixdim.* should be non-zero"),
        ({"sform_code": 77}, "sform_code 77 not valid"),
        ({"dim": [30, 4, 3, 2, 1, 1, 1, 1]}, ""),
        ({"vox_offset": np.inf}, ""),
        ({"vox_offset": np.nan}, ""),
        ({"vox_offset": -16}, "within the header itself"),
        ({"vox_offset": 0}, "within the header itself"),
        ({"vox_offset": 1e30}, "it holds 0 of the 48 bytes"),
        ({"datatype": 1234}, "data code 1234"),
        ({"scl_slope": 2, "scl_inter": np.nan}, ""),
        ({"magic": b"ni1"}, "magic number"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 3}, ""),
    ],
)
def test_nifti_headers_are_not_trusted(tmp_path: Path, fields: dict[str, object], problem: str) -> None:
    for path in (tmp_path / "scan.nii", tmp_path / "scan.nii.gz"):
        changed_nifti(tmp_path / "scan.nii", **fields)
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress((tmp_path / "scan.nii").read_bytes()))
        with pytest.raises(VolumeError, match=rf"{path.name}: cannot be read, should be a NIfTI file: .*{problem}"):
            read_volume(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [np.nan, 0, 0, 0]},
        {"srow_x": SIGNALLING_NANS},
        {"srow_x": [1e30, 0, 0, 0]},
        {"srow_x": [0, 0, 0, 0]},
        {"srow_x": [1e-30, 0, 0, 0]},
        {"srow_x": [0, -1, 0, 0]},
        {"srow_x": [-1, 0, 0, 3e38]},
    ],
)
def test_unusable_affines_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    changed_nifti(tmp_path / "scan.nii", **fields)
    with pytest.raises(VolumeError, match=r"scan\.nii: has the affine .*, should be finite and invertible"):
        read_volume(tmp_path / "scan.nii")


def test_scaled_values_that_overflow_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scan.nii", np.full((4, 3, 2), 1e300))
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header["scl_slope"] = 1e20
    content[:348] = header.binaryblock
    (tmp_path / "scan.nii").write_bytes(content)
    with pytest.raises(VolumeError, match="24 of 24 voxels are NaN or infinite"):
        read_volume(tmp_path / "scan.nii")


def changed_mha(path: Path, old: bytes, new: bytes) -> None:
    write_mha(path, np.ones((4, 3, 2), np.int16))
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"= LOCAL", b"= /etc/passwd", "ElementDataFile '/etc/passwd', should be 'LOCAL'"),
        (b"= LOCAL", b"= LIST", "ElementDataFile 'LIST'"),
        (b"= LOCAL", b"= scan.raw", "ElementDataFile 'scan.raw'"),
        (b"DimSize = 4 3 2", b"DimSize = 90000 90000 90000", "holds 48 of the 1458000000000000 bytes"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 1", "holds more of the 24 bytes"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3", "DimSize '4 3', should be 3 numbers"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 -2", "DimSize '4 3 -2', should be 3 numbers of at least 1"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 " + b"9" * 5000, "should be 3 numbers"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 2\nDimSize = 4 3 2", "the field 'DimSize' twice"),
        (b"DimSize", b"DimSixe", "no field 'DimSize'"),
        (b"NDims = 3", b"NDims = 2", "NDims '2', should be '3'"),
        (b"NDims = 3", b"NDims = 3\nHeaderSize = -1", "HeaderSize '-1'"),
        (b"BinaryData = True", b"BinaryData = False", "BinaryData 'False', should be 'True'"),
        (b"BinaryData = True", b"BinaryData = Maybe", "BinaryData 'Maybe'"),
        (b"CompressedData = False", b"CompressedData = True", "incorrect header check"),
        (b"MET_SHORT", b"MET_SHART", "ElementType 'MET_SHART', should be 'MET_CHAR' or "),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1", "ElementSpacing '1 1', should be 3 numbers"),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 x", "ElementSpacing '1 1 x', should be 3 numbers"),
        (b"NDims = 3", b"NDims", "should be 'field = value'"),
        (b"= Image", b"= Tube", "ObjectType 'Tube', should be 'Image'"),
    ],
)
def test_metaimage_headers_are_not_trusted(tmp_path: Path, old: bytes, new: bytes, problem: str) -> None:
    changed_mha(tmp_path / "scan.mha", old, new)
    with pytest.raises(VolumeError, match=rf"scan\.mha: cannot be read, should be a MetaImage \(\.mha\): .*{problem}"):
        read_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize("number", [b"nan", b"inf", b"0", b"1e300"])
def test_unusable_spacings_are_refused(tmp_path: Path, number: bytes) -> None:
    changed_mha(tmp_path / "scan.mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 " + number)
    with pytest.raises(VolumeError, match=r"scan\.mha: has the affine"):
        read_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize(
    ("sizes", "problem"), [(b"4 3 2", "holds more of the 48 bytes"), (b" ".join([b"9" * 18] * 3), "holds 16777216 of")]
)
def test_compressed_voxels_need_not_be_what_the_header_claims(tmp_path: Path, sizes: bytes, problem: str) -> None:
    changed_mha(tmp_path / "scan.mha", b"CompressedData = False", b"CompressedData = True")
    header, line, _ = (tmp_path / "scan.mha").read_bytes().replace(b"= 4 3 2", b"= " + sizes).partition(b"LOCAL\n")
    (tmp_path / "scan.mha").write_bytes(header + line + zlib.compress(bytes(1 << 24)))
    with pytest.raises(VolumeError, match=problem):
        read_volume(tmp_path / "scan.mha")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").mkdir()
    with pytest.raises(VolumeError, match=r"scan\.nii\.gz: .*it is not a regular file"):
        read_volume(tmp_path / "scan.nii.gz")
